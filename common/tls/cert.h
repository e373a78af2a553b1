/* Keys and certificates of the cluster's own CA, as PEM and DER texts: who needs a certificate makes a key and a request (PKCS #10, RFC 2986),
 * who has the CA's key signs it.
 *
 * Only the request's key is used, and only when the request is signed by it: names are the signer's to say. Keys are P-256 or Ed25519.
 * Ownership: texts are copied into the caller's buffers; those that hold a private key are wiped by the caller (tls_wipe). What is read is
 * untrusted: sizes are bounded, and no password is ever asked for.
 * Errors: ERR_INVALID what was given can't be used, ERR_CORRUPT the CA's own files, ERR_INTERNAL OpenSSL refused. No message holds a key.
 * Threads: any; no shared state. */
#ifndef ORCA_COMMON_TLS_CERT_H
#define ORCA_COMMON_TLS_CERT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"

#define TLS_PEM_MAX ((size_t)65536)
#define TLS_REQUEST_MAX ((size_t)8192)
#define TLS_SHA256_LEN 64 /* as lower-case hex */

/* A new P-256 key (PKCS #8, PEM) and a request signed by it. */
int tls_key_and_request(struct buf *key_pem, struct buf *request_der, struct err *err);

struct tls_signing {
  const char *ca_pem, *ca_key_pem;
  const char *common_name;
  const char *const *names; /* addresses or DNS names; one named twice counts once */
  size_t name_count;
  int64_t now_s; /* Unix time */
  int64_t life_s;
};
/* The certificate for the request's key, for a server, and the CA's behind it. It never outlives the CA. */
int tls_sign(const uint8_t *request_der, size_t len, const struct tls_signing *how, struct buf *chain_pem, int64_t *ret_not_after_s, struct err *err);

struct tls_certificate {
  int64_t not_before_s, not_after_s;
  char sha256[TLS_SHA256_LEN + 1]; /* of its DER form */
};
/* The first certificate of a PEM text. */
int tls_certificate_read(const char *pem, size_t len, struct tls_certificate *ret, struct err *err);
/* Whether the first certificate of a PEM text is for that address or DNS name. */
bool tls_certificate_covers(const char *pem, size_t len, const char *name);

void tls_wipe(struct buf *b); /* and frees it */

#endif
