/* A CA as a cluster has one, for tests and fuzzers of what is signed with it: two texts in the caller's room, with nothing to free. Since yesterday.
 */
#ifndef ORCA_TESTS_LIB_CA_H
#define ORCA_TESTS_LIB_CA_H

#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdint.h>
#include <stdlib.h>

struct ca {
  char pem[4096], key[2048];
};

/* Frees bio. */
static inline void ca_text(BIO *bio, char *out, size_t size) {
  int n = BIO_read(bio, out, (int)size - 1);
  if (n <= 0 || BIO_pending(bio))
    abort();
  out[n] = 0;
  BIO_free(bio);
}

static inline void ca_make(struct ca *ca, int64_t life_s) {
  EVP_PKEY *key = EVP_EC_gen("P-256");
  X509 *cert = X509_new();
  X509_NAME *name = X509_get_subject_name(cert);
  X509V3_CTX ctx;
  X509_set_version(cert, X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
  X509_gmtime_adj(X509_getm_notBefore(cert), -86400);
  X509_gmtime_adj(X509_getm_notAfter(cert), (long)life_s);
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)"a CA", -1, -1, 0);
  X509_set_issuer_name(cert, name);
  X509_set_pubkey(cert, key);
  X509V3_set_ctx(&ctx, cert, cert, NULL, NULL, 0);
  X509_EXTENSION *constraints = X509V3_EXT_conf_nid(NULL, &ctx, NID_basic_constraints, "critical,CA:TRUE");
  X509_EXTENSION *key_id = X509V3_EXT_conf_nid(NULL, &ctx, NID_subject_key_identifier, "hash");
  X509_add_ext(cert, constraints, -1);
  X509_add_ext(cert, key_id, -1);
  X509_EXTENSION_free(constraints);
  X509_EXTENSION_free(key_id);
  BIO *text = BIO_new(BIO_s_mem()), *key_text = BIO_new(BIO_s_mem());
  if (X509_sign(cert, key, EVP_sha256()) <= 0 || !PEM_write_bio_X509(text, cert) ||
      !PEM_write_bio_PKCS8PrivateKey(key_text, key, NULL, NULL, 0, NULL, NULL))
    abort();
  ca_text(text, ca->pem, sizeof ca->pem);
  ca_text(key_text, ca->key, sizeof ca->key);
  X509_free(cert);
  EVP_PKEY_free(key);
}

#endif
