#include "common/tls/cert.h"

#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <time.h>

#include "common/crypto/crypto.h"

#define NAME_MAX_LEN 253
#define BACKDATED 3600 /* clocks of two machines differ */

/* Not a person's terminal: an encrypted key is refused instead of asking. */
static int no_password(char *out, int size, int writing, void *arg) {
  (void)out;
  (void)size;
  (void)writing;
  (void)arg;
  return 0;
}

static BIO *reader(const char *pem, size_t len) {
  return len && len <= TLS_PEM_MAX ? BIO_new_mem_buf(pem, (int)len) : NULL;
}

static X509 *read_certificate(const char *pem, size_t len) {
  BIO *bio = reader(pem, len);
  X509 *cert = bio ? PEM_read_bio_X509(bio, NULL, no_password, NULL) : NULL;
  BIO_free(bio);
  ERR_clear_error();
  return cert;
}

static EVP_PKEY *read_key(const char *pem, size_t len) {
  BIO *bio = reader(pem, len);
  EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL) : NULL;
  BIO_free(bio);
  ERR_clear_error();
  return key;
}

static int take_text(BIO *bio, struct buf *out) {
  char *text;
  long len = BIO_get_mem_data(bio, &text);
  return len > 0 && buf_add(out, text, (size_t)len) == 0 ? 0 : -1;
}

/* ---- a request ---- */

static bool make_request(EVP_PKEY *key, struct buf *der) {
  X509_REQ *request = X509_REQ_new();
  unsigned char *data = NULL;
  bool ok = request && X509_REQ_set_version(request, X509_REQ_VERSION_1) == 1 && X509_REQ_set_pubkey(request, key) == 1 &&
            X509_REQ_sign(request, key, EVP_sha256()) > 0;
  int len = ok ? i2d_X509_REQ(request, &data) : -1;
  ok = len > 0 && buf_add(der, data, (size_t)len) == 0;
  OPENSSL_free(data);
  X509_REQ_free(request);
  return ok;
}

int tls_key_and_request(struct buf *key_pem, struct buf *request_der, struct err *err) {
  EVP_PKEY *key = EVP_EC_gen("P-256");
  BIO *bio = BIO_new(BIO_s_secmem());
  bool ok = key && bio && PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) == 1 && take_text(bio, key_pem) == 0 &&
            make_request(key, request_der);
  BIO_free(bio);
  EVP_PKEY_free(key);
  ERR_clear_error();
  return ok ? 0 : err_set(err, ERR_INTERNAL, "no key for a certificate could be made");
}

/* ---- signing ---- */

static bool key_is_modern(const EVP_PKEY *key) {
  char group[32];
  size_t len;
  if (EVP_PKEY_is_a(key, "ED25519"))
    return true;
  return EVP_PKEY_is_a(key, "EC") && EVP_PKEY_get_group_name(key, group, sizeof group, &len) == 1 && strcmp(group, SN_X9_62_prime256v1) == 0;
}

/* The public key that a request asks a certificate for; NULL. */
static EVP_PKEY *key_of_request(const uint8_t *der, size_t len, struct err *err) {
  const unsigned char *at = der;
  X509_REQ *request = len && len <= TLS_REQUEST_MAX ? d2i_X509_REQ(NULL, &at, (long)len) : NULL;
  EVP_PKEY *key = request && at == der + len ? X509_REQ_get_pubkey(request) : NULL;
  bool modern = key && key_is_modern(key), own = modern && X509_REQ_verify(request, key) == 1;
  X509_REQ_free(request);
  ERR_clear_error();
  if (own)
    return key;
  EVP_PKEY_free(key);
  err_set(err, ERR_INVALID, "%s",
          !key      ? "not a certificate request"
          : !modern ? "its key is neither P-256 nor Ed25519"
                    : "it is not signed by its own key");
  return NULL;
}

static bool add_name(GENERAL_NAMES *list, const char *text) {
  uint8_t address[16];
  int bytes = inet_pton(AF_INET, text, address) == 1 ? 4 : inet_pton(AF_INET6, text, address) == 1 ? 16 : 0;
  if (!*text || strlen(text) > NAME_MAX_LEN)
    return false;
  GENERAL_NAME *name = GENERAL_NAME_new();
  ASN1_STRING *value = bytes ? ASN1_OCTET_STRING_new() : ASN1_IA5STRING_new();
  if (!name || !value || ASN1_STRING_set(value, bytes ? (const void *)address : text, bytes ? bytes : (int)strlen(text)) != 1) {
    GENERAL_NAME_free(name);
    ASN1_STRING_free(value);
    return false;
  }
  GENERAL_NAME_set0_value(name, bytes ? GEN_IPADD : GEN_DNS, value);
  for (int i = 0; i < sk_GENERAL_NAME_num(list); i++)
    if (GENERAL_NAME_cmp(sk_GENERAL_NAME_value(list, i), name) == 0) {
      GENERAL_NAME_free(name);
      return true;
    }
  if (sk_GENERAL_NAME_push(list, name) > 0)
    return true;
  GENERAL_NAME_free(name);
  return false;
}

static bool add_names(X509 *cert, const struct tls_signing *how) {
  GENERAL_NAMES *list = sk_GENERAL_NAME_new_null();
  bool ok = list != NULL;
  for (size_t i = 0; ok && i < how->name_count; i++)
    ok = add_name(list, how->names[i]);
  ok = ok && X509_add1_ext_i2d(cert, NID_subject_alt_name, list, 0, X509V3_ADD_APPEND) == 1;
  sk_GENERAL_NAME_pop_free(list, GENERAL_NAME_free);
  return ok;
}

static bool add_extension(X509 *cert, X509 *ca, int nid, const char *value) {
  X509V3_CTX ctx;
  X509V3_set_ctx(&ctx, ca, cert, NULL, NULL, 0);
  X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
  bool ok = ext && X509_add_ext(cert, ext, -1) == 1;
  X509_EXTENSION_free(ext);
  return ok;
}

static int64_t seconds(const ASN1_TIME *t) {
  struct tm tm;
  return ASN1_TIME_to_tm(t, &tm) == 1 ? (int64_t)timegm(&tm) : -1;
}

static X509 *sign(EVP_PKEY *key, X509 *ca, EVP_PKEY *ca_key, const struct tls_signing *how, int64_t until) {
  X509 *cert = X509_new();
  uint64_t serial;
  bool ok = cert && crypto_random(&serial, sizeof serial, NULL) == 0 && X509_set_version(cert, X509_VERSION_3) == 1 &&
            ASN1_INTEGER_set_uint64(X509_get_serialNumber(cert), serial >> 1) == 1 &&
            ASN1_TIME_set(X509_getm_notBefore(cert), (time_t)(how->now_s - BACKDATED)) && ASN1_TIME_set(X509_getm_notAfter(cert), (time_t)until) &&
            X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_UTF8, (const unsigned char *)how->common_name, -1, -1, 0) == 1 &&
            X509_set_issuer_name(cert, X509_get_subject_name(ca)) == 1 && X509_set_pubkey(cert, key) == 1 &&
            add_extension(cert, ca, NID_basic_constraints, "critical,CA:FALSE") &&
            add_extension(cert, ca, NID_key_usage, "critical,digitalSignature") && add_extension(cert, ca, NID_ext_key_usage, "serverAuth") &&
            add_extension(cert, ca, NID_subject_key_identifier, "hash") && add_extension(cert, ca, NID_authority_key_identifier, "keyid") &&
            add_names(cert, how) && X509_sign(cert, ca_key, EVP_PKEY_is_a(ca_key, "ED25519") ? NULL : EVP_sha256()) > 0;
  if (ok)
    return cert;
  X509_free(cert);
  return NULL;
}

int tls_sign(const uint8_t *request_der, size_t len, const struct tls_signing *how, struct buf *chain_pem, int64_t *ret_not_after_s,
             struct err *err) {
  EVP_PKEY *key = key_of_request(request_der, len, err);
  if (!key)
    return -1;
  X509 *ca = read_certificate(how->ca_pem, strlen(how->ca_pem)), *cert = NULL;
  EVP_PKEY *ca_key = read_key(how->ca_key_pem, strlen(how->ca_key_pem));
  BIO *bio = BIO_new(BIO_s_mem());
  int64_t ca_until = ca ? seconds(X509_get0_notAfter(ca)) : 0, until = how->now_s + how->life_s;
  int rc = -1;
  if (until > ca_until)
    until = ca_until;
  if (!ca || !ca_key || X509_check_private_key(ca, ca_key) != 1)
    err_set(err, ERR_CORRUPT, "the cluster's CA can't be used: its certificate and its key do not belong together");
  else if (until <= how->now_s)
    err_set(err, ERR_INVALID, "the cluster's CA has expired");
  else if (!bio || !(cert = sign(key, ca, ca_key, how, until)) || PEM_write_bio_X509(bio, cert) != 1 || PEM_write_bio_X509(bio, ca) != 1 ||
           take_text(bio, chain_pem) < 0)
    err_set(err, ERR_INTERNAL, "no certificate could be made");
  else
    rc = 0;
  if (rc == 0)
    *ret_not_after_s = until;
  BIO_free(bio);
  X509_free(cert);
  X509_free(ca);
  EVP_PKEY_free(ca_key);
  EVP_PKEY_free(key);
  ERR_clear_error();
  return rc;
}

/* ---- reading ---- */

int tls_certificate_read(const char *pem, size_t len, struct tls_certificate *ret, struct err *err) {
  X509 *cert = read_certificate(pem, len);
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned n = 0;
  if (!cert || X509_digest(cert, EVP_sha256(), digest, &n) != 1) {
    X509_free(cert);
    return err_set(err, ERR_INVALID, "not a certificate");
  }
  ret->not_before_s = seconds(X509_get0_notBefore(cert));
  ret->not_after_s = seconds(X509_get0_notAfter(cert));
  crypto_hex(digest, n, ret->sha256);
  X509_free(cert);
  return 0;
}

bool tls_certificate_covers(const char *pem, size_t len, const char *name) {
  X509 *cert = read_certificate(pem, len);
  struct in6_addr any;
  bool ip = inet_pton(AF_INET, name, &any) == 1 || inet_pton(AF_INET6, name, &any) == 1;
  bool covers = cert && (ip ? X509_check_ip_asc(cert, name, 0) : X509_check_host(cert, name, 0, 0, NULL)) == 1;
  X509_free(cert);
  return covers;
}

void tls_wipe(struct buf *b) {
  if (b->data)
    crypto_wipe(b->data, b->size);
  buf_free(b);
}
