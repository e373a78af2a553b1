/* Randomness, hashes, base64, sealing and constant-time comparison: of the kernel, libsodium, and (sealing alone) OpenSSL's libcrypto.
 * Threads: any. */
#ifndef ORCA_COMMON_CRYPTO_CRYPTO_H
#define ORCA_COMMON_CRYPTO_CRYPTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"

#define CRYPTO_KEY_LEN 32

int crypto_random(void *out, size_t len, struct err *err);
/* Lower-case letters and digits, 5 bits of entropy each; out gets len characters and a NUL. */
int crypto_random_id(char *out, size_t len, struct err *err);
void crypto_sha256(const void *data, size_t len, uint8_t out[32]);
/* The same in pieces; plain memory, nothing to free. */
struct crypto_sha256 {
  _Alignas(16) uint8_t state[128];
};
void crypto_sha256_start(struct crypto_sha256 *hash);
void crypto_sha256_add(struct crypto_sha256 *hash, const void *data, size_t len);
void crypto_sha256_end(struct crypto_sha256 *hash, uint8_t out[32]);
void crypto_hex(const uint8_t *data, size_t len, char *out); /* 2 × len + NUL */
/* RFC 4648, section 4. */
#define CRYPTO_BASE64_LEN(len) (((len) + 2) / 3 * 4)
void crypto_base64(const void *data, size_t len, char *out); /* CRYPTO_BASE64_LEN(len) + NUL */
/* Strict: padded, no other characters, no stray bits; -1 when it is not, or is more than `size` bytes. */
int crypto_from_base64(const char *text, size_t len, void *out, size_t size, size_t *ret_len);
/* For tables whose keys somebody else chooses: SipHash-2-4 under a key of this process, so that nobody can choose them to collide. */
uint64_t crypto_table_hash(const void *data, size_t len);
bool crypto_equal(const void *a, const void *b, size_t len); /* time independent of the contents */
void crypto_wipe(void *data, size_t len);

/* This process from now on: no core files (its limit is 0, for good), and nobody of the same user may trace it or read its memory. */
void crypto_private_process(void);

/* AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce in front: nonce, ciphertext, tag. aad is bound in, not stored. */
int crypto_seal(const uint8_t key[CRYPTO_KEY_LEN], const void *aad, size_t aad_len, const void *plain, size_t len, struct buf *sealed,
                struct err *err);
/* plain is written only when the tag holds; ERR_CORRUPT otherwise. */
int crypto_open(const uint8_t key[CRYPTO_KEY_LEN], const void *aad, size_t aad_len, const void *sealed, size_t len, struct buf *plain,
                struct err *err);

/* CRC32C (Castagnoli, RFC 3720 B.4), hardware where the CPU has it. Start with crc 0. */
uint32_t crypto_crc32c(uint32_t crc, const void *data, size_t len);

#endif
