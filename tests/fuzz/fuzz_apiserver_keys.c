/* KEY_DIR/apiserver as somebody's hands have left it: whatever is in master.key, it is a key, or refused in words that tell nothing of it; and a
 * certificate is signed with what is in ca.pem and ca.key, or it is said why not. First byte: master.key, the CA's two texts, or edits of true ones.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/tls/cert.h"
#include "orca-apiserver/keyring.h"
#include "tests/fuzz/files.h"
#include "tests/fuzz/fuzz.h"
#include "tests/lib/ca.h"

static struct ca ca;
static struct buf request = BUF_INIT(TLS_REQUEST_MAX);

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  struct buf key = BUF_INIT(TLS_PEM_MAX);
  struct err err;
  (void)argc;
  (void)argv;
  fuzz_make_dir("apiserver");
  ca_make(&ca, INT64_C(86400) * 3650);
  if (tls_key_and_request(&key, &request, &err) < 0)
    abort();
  tls_wipe(&key);
  return 0;
}

/* The first half in one file and the rest in the other, which a rotation that was cut off leaves, when the first byte is odd. */
static void master_keys(const uint8_t *data, size_t size) {
  struct keyring ring;
  struct err err = {0};
  size_t half = size && data[0] % 2 ? size / 2 : size;
  fuzz_write("apiserver/master.key", data, half);
  fuzz_write("apiserver/master.key.next", data + half, size - half);
  if (half == size) {
    char path[64];
    snprintf(path, sizeof path, "%s/apiserver/master.key.next", fuzz_dir);
    unlink(path);
  }
  if (keyring_open(&ring, fuzz_dir, &err) == 0) {
    if (!ring.master.there || strlen(ring.master.id) != KEYRING_ID_LEN || keyring_find(&ring, ring.master.id) != &ring.master)
      abort();
    keyring_wipe(&ring);
  } else {
    fuzz_check_refusal(&err, data, half);
  }
}

static void authority(const char *cert, const char *key) {
  static const char *const names[] = {"n1", "10.0.0.1"};
  struct tls_signing how = {
      .ca_pem = cert, .ca_key_pem = key, .common_name = "n1", .names = names, .name_count = 2, .now_s = INT64_C(1800000000), .life_s = 86400};
  struct buf chain = BUF_INIT(TLS_PEM_MAX);
  struct tls_certificate info;
  struct err err = {0};
  int64_t until;
  if (tls_sign(request.data, request.len, &how, &chain, &until, &err) == 0) {
    if (tls_certificate_read(buf_str(&chain), chain.len, &info, &err) < 0)
      abort();
  } else {
    fuzz_check_refusal(&err, key, strlen(key));
  }
  tls_certificate_read(cert, strlen(cert), &info, &err);
  tls_certificate_covers(cert, strlen(cert), "n1");
  buf_free(&chain);
}

/* Split at the first NUL: the certificate, then the key. Without one, both in one text. */
static void two_texts(const uint8_t *data, size_t size) {
  struct fuzz_texts in = fuzz_split(data, size);
  char *cert = strndup((const char *)in.first, in.first_len);
  char *key = in.second ? strndup((const char *)in.second, in.second_len) : strndup((const char *)in.first, in.first_len);
  if (cert && key)
    authority(cert, key);
  free(cert);
  free(key);
}

/* Each three bytes: where, and what is there now; a NUL cuts the text. */
static void edits(const uint8_t *data, size_t size) {
  char cert[sizeof ca.pem], key[sizeof ca.key];
  memcpy(cert, ca.pem, sizeof cert);
  memcpy(key, ca.key, sizeof key);
  size_t cert_len = strlen(cert), key_len = strlen(key);
  for (; size >= 3; data += 3, size -= 3) {
    size_t at = ((size_t)data[0] << 8 | data[1]) % (cert_len + key_len);
    if (at < cert_len)
      cert[at] = (char)data[2];
    else
      key[at - cert_len] = (char)data[2];
  }
  authority(cert, key);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 1 || size > 1 << 15)
    return 0;
  switch (data[0] % 3) {
  case 0:
    master_keys(data + 1, size - 1);
    break;
  case 1:
    two_texts(data + 1, size - 1);
    break;
  default:
    edits(data + 1, size - 1);
  }
  return 0;
}
