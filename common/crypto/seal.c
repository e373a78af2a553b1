#include <limits.h>
#include <openssl/evp.h>
#include <string.h>

#include "common/crypto/crypto.h"

#define NONCE_LEN 12
#define TAG_LEN 16

int crypto_seal(const uint8_t key[CRYPTO_KEY_LEN], const void *aad, size_t aad_len, const void *plain, size_t len, struct buf *sealed,
                struct err *err) {
  size_t start = sealed->len;
  if (len > INT_MAX || aad_len > INT_MAX || buf_reserve(sealed, NONCE_LEN + len + TAG_LEN) < 0)
    return err_set(err, ERR_TOO_LARGE, "too much to seal: %zu bytes", len);
  uint8_t *nonce = sealed->data + start, *out = nonce + NONCE_LEN;
  if (crypto_random(nonce, NONCE_LEN, err) < 0)
    return -1;
  EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
  int n = 0, tail = 0;
  bool ok = ctx && EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, nonce) == 1 &&
            (aad_len == 0 || EVP_EncryptUpdate(ctx, NULL, &n, aad, (int)aad_len) == 1) && (n = 0, true) &&
            (len == 0 || EVP_EncryptUpdate(ctx, out, &n, plain, (int)len) == 1) && EVP_EncryptFinal_ex(ctx, out + n, &tail) == 1 &&
            EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, TAG_LEN, out + len) == 1;
  EVP_CIPHER_CTX_free(ctx);
  if (!ok)
    return err_set(err, ERR_INTERNAL, "sealing failed");
  sealed->len += NONCE_LEN + len + TAG_LEN;
  sealed->data[sealed->len] = 0;
  return 0;
}

int crypto_open(const uint8_t key[CRYPTO_KEY_LEN], const void *aad, size_t aad_len, const void *sealed, size_t len, struct buf *plain,
                struct err *err) {
  if (len < NONCE_LEN + TAG_LEN || len > INT_MAX || aad_len > INT_MAX)
    return err_set(err, ERR_CORRUPT, "not a sealed record");
  size_t body = len - NONCE_LEN - TAG_LEN;
  if (buf_reserve(plain, body) < 0)
    return err_set(err, ERR_TOO_LARGE, "too much to open: %zu bytes", body);
  const uint8_t *nonce = sealed, *in = nonce + NONCE_LEN;
  uint8_t tag[TAG_LEN], *out = plain->data + plain->len;
  memcpy(tag, in + body, TAG_LEN);
  EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
  int n = 0, tail = 0;
  bool ok = ctx && EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, nonce) == 1 &&
            (aad_len == 0 || EVP_DecryptUpdate(ctx, NULL, &n, aad, (int)aad_len) == 1) && (n = 0, true) &&
            (body == 0 || EVP_DecryptUpdate(ctx, out, &n, in, (int)body) == 1) && EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, TAG_LEN, tag) == 1 &&
            EVP_DecryptFinal_ex(ctx, out + n, &tail) == 1;
  EVP_CIPHER_CTX_free(ctx);
  if (!ok) {
    crypto_wipe(out, body);
    return err_set(err, ERR_CORRUPT, "a sealed record does not open: wrong key, or it was changed or moved");
  }
  plain->len += body;
  plain->data[plain->len] = 0;
  return 0;
}
