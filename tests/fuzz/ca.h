/* For fuzzers that need the CA of a cluster. */
#ifndef ORCA_TESTS_FUZZ_CA_H
#define ORCA_TESTS_FUZZ_CA_H

#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>

static inline void fuzz_text_of(BIO *bio, char *out, size_t size) {
  int n = BIO_read(bio, out, (int)size - 1);
  if (n <= 0)
    abort();
  out[n] = 0;
  BIO_free(bio);
}

static inline void fuzz_make_ca(char pem[4096], char key_pem[2048]) {
  EVP_PKEY *key = EVP_EC_gen("P-256");
  X509 *cert = X509_new();
  X509V3_CTX ctx;
  X509_set_version(cert, X509_VERSION_3);
  X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
  X509_gmtime_adj(X509_getm_notAfter(cert), 86400L * 3650);
  X509_set_pubkey(cert, key);
  X509V3_set_ctx(&ctx, cert, cert, NULL, NULL, 0);
  X509_EXTENSION *id = X509V3_EXT_conf_nid(NULL, &ctx, NID_subject_key_identifier, "hash");
  X509_add_ext(cert, id, -1);
  X509_EXTENSION_free(id);
  X509_sign(cert, key, EVP_sha256());
  BIO *text = BIO_new(BIO_s_mem()), *key_text = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(text, cert);
  PEM_write_bio_PKCS8PrivateKey(key_text, key, NULL, NULL, 0, NULL, NULL);
  fuzz_text_of(text, pem, 4096);
  fuzz_text_of(key_text, key_pem, 2048);
  X509_free(cert);
  EVP_PKEY_free(key);
}

#endif
