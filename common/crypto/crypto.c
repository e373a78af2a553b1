#include "common/crypto/crypto.h"

#include <errno.h>
#include <pthread.h>
#include <sodium.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>

/* Not OpenSSL, but for sealing: its 5 MB and its start-up would be the larger part of a small daemon's own. libsodium is there
 * anyway, under the bus. */

int crypto_random(void *out, size_t len, struct err *err) {
  for (uint8_t *p = out; len;) {
    ssize_t n = getrandom(p, len, 0);
    if (n < 0 && errno != EINTR)
      return err_set(err, ERR_INTERNAL, "no randomness to be had");
    if (n > 0) {
      p += n;
      len -= (size_t)n;
    }
  }
  return 0;
}

int crypto_random_id(char *out, size_t len, struct err *err) {
  static const char letters[] = "abcdefghijklmnopqrstuvwxyz234567";
  if (crypto_random(out, len, err) < 0)
    return -1;
  for (size_t i = 0; i < len; i++)
    out[i] = letters[(unsigned char)out[i] % 32];
  out[len] = 0;
  return 0;
}

_Static_assert(sizeof(crypto_hash_sha256_state) <= sizeof(struct crypto_sha256), "room for libsodium's state");
_Static_assert(_Alignof(crypto_hash_sha256_state) <= _Alignof(struct crypto_sha256), "alignment of libsodium's state");

void crypto_sha256_start(struct crypto_sha256 *hash) {
  crypto_hash_sha256_init((crypto_hash_sha256_state *)hash);
}

void crypto_sha256_add(struct crypto_sha256 *hash, const void *data, size_t len) {
  crypto_hash_sha256_update((crypto_hash_sha256_state *)hash, data, len);
}

void crypto_sha256_end(struct crypto_sha256 *hash, uint8_t out[32]) {
  crypto_hash_sha256_final((crypto_hash_sha256_state *)hash, out);
}

void crypto_sha256(const void *data, size_t len, uint8_t out[32]) {
  crypto_hash_sha256(out, data, len);
}

void crypto_base64(const void *data, size_t len, char *out) {
  sodium_bin2base64(out, CRYPTO_BASE64_LEN(len) + 1, data, len, sodium_base64_VARIANT_ORIGINAL);
}

int crypto_from_base64(const char *text, size_t len, void *out, size_t size, size_t *ret_len) {
  const char *end;
  if (sodium_base642bin(out, size, text, len, NULL, ret_len, &end, sodium_base64_VARIANT_ORIGINAL) != 0 || end != text + len)
    return -1;
  return 0;
}

void crypto_hex(const uint8_t *data, size_t len, char *out) {
  static const char digits[] = "0123456789abcdef";
  for (size_t i = 0; i < len; i++) {
    out[2 * i] = digits[data[i] >> 4];
    out[2 * i + 1] = digits[data[i] & 15];
  }
  out[2 * len] = 0;
}

static uint8_t table_key[crypto_shorthash_KEYBYTES];

static void make_table_key(void) {
  struct err err;
  (void)crypto_random(table_key, sizeof table_key, &err); /* without: as good as a hash that everybody knows */
}

uint64_t crypto_table_hash(const void *data, size_t len) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  uint64_t hash;
  _Static_assert(sizeof hash == crypto_shorthash_BYTES, "64 bits");
  pthread_once(&once, make_table_key);
  crypto_shorthash((unsigned char *)&hash, data, len, table_key);
  return hash;
}

bool crypto_equal(const void *a, const void *b, size_t len) {
  return sodium_memcmp(a, b, len) == 0;
}

void crypto_wipe(void *data, size_t len) {
  explicit_bzero(data, len);
}

void crypto_private_process(void) {
  /* Both: a core file goes by the first, ptrace and /proc/PID/mem by the second, which also holds where the limit is ignored (core_pattern's pipes).
   */
  setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
  prctl(PR_SET_DUMPABLE, 0);
}
