#include "common/crypto/crypto.h"

#include <endian.h>
#include <string.h>

#define POLY 0x82f63b78u /* reflected Castagnoli polynomial, RFC 3720 B.4 */

static uint32_t table[8][256];

/* Filled before main(): read-only afterwards, so any thread may use it. */
__attribute__((constructor)) static void fill_table(void) {
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t c = i;
    for (int k = 0; k < 8; k++)
      c = c & 1 ? c >> 1 ^ POLY : c >> 1;
    table[0][i] = c;
  }
  for (uint32_t i = 0; i < 256; i++)
    for (int k = 1; k < 8; k++)
      table[k][i] = table[k - 1][i] >> 8 ^ table[0][table[k - 1][i] & 255];
}

static uint32_t by_table(uint32_t c, const uint8_t *p, size_t len) {
  for (; len >= 8; p += 8, len -= 8) {
    uint64_t v;
    memcpy(&v, p, 8);
    v = le64toh(v) ^ c;
    c = table[7][v & 255] ^ table[6][v >> 8 & 255] ^ table[5][v >> 16 & 255] ^ table[4][v >> 24 & 255] ^ table[3][v >> 32 & 255] ^
        table[2][v >> 40 & 255] ^ table[1][v >> 48 & 255] ^ table[0][v >> 56];
  }
  while (len--)
    c = c >> 8 ^ table[0][(c ^ *p++) & 255];
  return c;
}

#ifdef __x86_64__
__attribute__((target("sse4.2"))) static uint32_t by_cpu(uint32_t c, const uint8_t *p, size_t len) {
  uint64_t wide = c;
  for (; len >= 8; p += 8, len -= 8) {
    uint64_t v;
    memcpy(&v, p, 8);
    wide = __builtin_ia32_crc32di(wide, v);
  }
  c = (uint32_t)wide;
  while (len--)
    c = __builtin_ia32_crc32qi(c, *p++);
  return c;
}
#endif

uint32_t crypto_crc32c(uint32_t crc, const void *data, size_t len) {
  uint32_t c = ~crc;
#ifdef __x86_64__
  if (__builtin_cpu_supports("sse4.2"))
    return ~by_cpu(c, data, len);
#endif
  return ~by_table(c, data, len);
}
