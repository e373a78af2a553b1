/* err, buf, crypto and pb: the small libraries that everything stands on. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <malloc.h>

#include "common/buf.h"
#include "common/bus/pb.h"
#include "common/crypto/crypto.h"
#include "common/err.h"
#include "proto/model.pb-c.h"

static void err_carries_code_text_and_context(void **state) {
  (void)state;
  struct err e;
  assert_int_equal(err_set(&e, ERR_NOT_FOUND, "image %s\nx", "a"), -1);
  assert_string_equal(e.msg, "image a x");
  err_context(&e, "deploy %s", "shop/api");
  assert_string_equal(e.msg, "deploy shop/api: image a x");
  assert_int_equal(e.code, ERR_NOT_FOUND);
  err_errno(&e, ENOSPC, "append");
  assert_int_equal(e.code, ERR_NO_SPACE);
  assert_non_null(strstr(e.msg, "append: No space"));
  assert_int_equal(err_set(NULL, ERR_IO, "nobody cares"), -1);
}

static void err_context_never_crowds_out_the_cause(void **state) {
  (void)state;
  struct err e;
  char context[1000];
  memset(context, 'c', sizeof context - 1);
  context[sizeof context - 1] = 0;
  err_set(&e, ERR_IO, "the cause");
  err_context(&e, "%s", context);
  assert_non_null(strstr(e.msg, "the cause"));
}

static void err_codes_survive_the_wire(void **state) {
  (void)state;
  for (unsigned i = ERR_NONE + 1; i < ERR_CODE_COUNT; i++) {
    assert_int_equal(err_code_from_number(i), i);
    assert_int_equal(err_code_from_text(err_code_text((enum err_code)i)), i);
    assert_in_range(err_code_http((enum err_code)i), 400, 599);
  }
  assert_int_equal(err_code_from_number(0), ERR_INTERNAL);
  assert_int_equal(err_code_from_number(4000000000u), ERR_INTERNAL);
  assert_int_equal(err_code_from_text("no such code"), ERR_INTERNAL);
}

static void buf_grows_up_to_its_cap_and_stays_failed(void **state) {
  (void)state;
  struct buf b = BUF_INIT(10);
  assert_string_equal(buf_str(&b), "");
  assert_int_equal(buf_add_str(&b, "12345"), 0);
  assert_int_equal(buf_printf(&b, "%d", 67890), 0);
  assert_string_equal(buf_str(&b), "1234567890");
  assert_int_equal(buf_add_byte(&b, 'x'), -1);
  assert_true(buf_failed(&b));
  assert_int_equal(buf_add(&b, "", 0), -1);
  assert_string_equal(buf_str(&b), "1234567890");
  assert_null(buf_take(&b, NULL));
  assert_int_equal(buf_add_str(&b, "again"), 0);
  buf_consume(&b, 2);
  assert_string_equal(buf_str(&b), "ain");
  buf_consume(&b, 100);
  assert_int_equal(b.len, 0);
  struct buf room = BUF_INIT(100);
  mallopt(M_PERTURB, 0x5a); /* new memory is not zeros */
  assert_int_equal(buf_reserve(&room, 50), 0);
  assert_string_equal(buf_str(&room), ""); /* room is no text */
  int ends[2];
  assert_int_equal(pipe(ends), 0);
  assert_int_equal(write(ends[1], "text", 4), 4);
  close(ends[1]);
  assert_int_equal(buf_read(&room, ends[0], 20), 4);
  assert_string_equal(buf_str(&room), "text"); /* though there was room: it did not grow */
  assert_int_equal(buf_read(&room, ends[0], 20), 0);
  close(ends[0]);
  assert_int_equal(buf_read(&room, ends[0], 20), -1);
  assert_int_equal(errno, EBADF);
  assert_string_equal(buf_str(&room), "text");
  assert_int_equal(buf_read(&room, ends[0], 97), -1);
  assert_int_equal(errno, EFBIG);
  mallopt(M_PERTURB, 0);
  buf_free(&room);
  assert_int_equal(buf_reserve(&b, SIZE_MAX), -1);
  buf_free(&b);
  buf_free(NULL);
}

/* FIPS 180-4's example "abc", RFC 4648's own of base64. */
static void hashes_and_base64_are_the_standards(void **state) {
  (void)state;
  uint8_t hash[32], pieces[32], bytes[16];
  char hex[65], text[16];
  size_t len;
  crypto_sha256("abc", 3, hash);
  crypto_hex(hash, sizeof hash, hex);
  assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  struct crypto_sha256 sum;
  crypto_sha256_start(&sum);
  crypto_sha256_add(&sum, "a", 1);
  crypto_sha256_add(&sum, "bc", 2);
  crypto_sha256_end(&sum, pieces);
  assert_true(crypto_equal(hash, pieces, sizeof hash));
  static const char *const plain[] = {"", "f", "fo", "foo", "foob", "fooba", "foobar"}, *const encoded[] = {"",         "Zg==",     "Zm8=",    "Zm9v",
                                                                                                            "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"};
  for (size_t i = 0; i < 7; i++) {
    crypto_base64(plain[i], i, text);
    assert_string_equal(text, encoded[i]);
    assert_int_equal(crypto_from_base64(text, strlen(text), bytes, i, &len), 0);
    assert_int_equal(len, i);
    assert_memory_equal(bytes, plain[i], i);
    if (i)
      assert_int_equal(crypto_from_base64(text, strlen(text), bytes, i - 1, &len), -1);
  }
  static const char *const bad[] = {"Zg", "Zg=", "Zh==", "Zm9v\n", " Zm9v", "Zm9v=", "Z-9v", "====", "Zg==Zg=="};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_int_equal(crypto_from_base64(bad[i], strlen(bad[i]), bytes, sizeof bytes, &len), -1);
}

static void sealed_opens_only_as_it_was(void **state) {
  (void)state;
  uint8_t key[CRYPTO_KEY_LEN];
  assert_int_equal(crypto_random(key, sizeof key, NULL), 0);
  struct buf sealed = BUF_INIT(1000), plain = BUF_INIT(1000);
  struct err e;
  assert_int_equal(crypto_seal(key, "shop/DB", 7, "secret", 6, &sealed, &e), 0);
  assert_int_equal(sealed.len, 6 + 28);
  assert_int_equal(crypto_open(key, "shop/DB", 7, sealed.data, sealed.len, &plain, &e), 0);
  assert_string_equal(buf_str(&plain), "secret");
  buf_reset(&plain);
  assert_int_equal(crypto_open(key, "shop/XX", 7, sealed.data, sealed.len, &plain, &e), -1);
  assert_int_equal(e.code, ERR_CORRUPT);
  for (size_t i = 0; i < sealed.len; i++) {
    sealed.data[i] ^= 1;
    assert_int_equal(crypto_open(key, "shop/DB", 7, sealed.data, sealed.len, &plain, &e), -1);
    sealed.data[i] ^= 1;
    assert_int_equal(crypto_open(key, "shop/DB", 7, sealed.data, i, &plain, &e), -1);
  }
  assert_int_equal(plain.len, 0);
  buf_free(&sealed);
  assert_int_equal(crypto_seal(key, NULL, 0, NULL, 0, &sealed, &e), 0);
  assert_int_equal(crypto_open(key, NULL, 0, sealed.data, sealed.len, &plain, &e), 0);
  assert_int_equal(plain.len, 0);
  buf_free(&sealed);
  buf_free(&plain);
}

static void crc32c_has_the_values_of_rfc_3720(void **state) {
  (void)state;
  uint8_t bytes[32] = {0};
  assert_int_equal(crypto_crc32c(0, bytes, 32), 0x8a9136aa);
  memset(bytes, 0xff, 32);
  assert_int_equal(crypto_crc32c(0, bytes, 32), 0x62a8ab43);
  for (int i = 0; i < 32; i++)
    bytes[i] = (uint8_t)i;
  assert_int_equal(crypto_crc32c(0, bytes, 32), 0x46dd794e);
  assert_int_equal(crypto_crc32c(crypto_crc32c(0, bytes, 13), bytes + 13, 19), 0x46dd794e);
}

static void random_ids_are_long_and_differ(void **state) {
  (void)state;
  char a[21], b[21];
  assert_int_equal(crypto_random_id(a, 20, NULL), 0);
  assert_int_equal(crypto_random_id(b, 20, NULL), 0);
  assert_int_equal(strlen(a), 20);
  assert_int_equal(strspn(a, "abcdefghijklmnopqrstuvwxyz234567"), 20);
  assert_string_not_equal(a, b);
}

static void utf8_is_checked_as_unicode_has_it(void **state) {
  (void)state;
  static const char *const good[] = {"", "abc", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x90\x8b", "\xf4\x8f\xbf\xbf", "\xed\x9f\xbf"};
  static const char *const bad[] = {"\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80",
                                    "\xc3", "\xe2\x82", "\xff"};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++)
    assert_true(pb_utf8_valid(good[i], strlen(good[i])));
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_false(pb_utf8_valid(bad[i], strlen(bad[i])));
}

static void texts_are_made_utf8(void **state) {
  (void)state;
  static const char *const pairs[][2] = {
      {"", ""},
      {"caf\xc3\xa9", "caf\xc3\xa9"},
      {"caf\xc3", "caf"},
      {"\xe2\x82\xac\xf0\x9f\x90", "\xe2\x82\xac"},
      {"caf\xe9 zu", "caf? zu"},
      {"\xff\xff\xff\xff", "????"},
  };
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
    char text[32];
    snprintf(text, sizeof text, "%s", pairs[i][0]);
    pb_make_utf8(text);
    assert_string_equal(text, pairs[i][1]);
  }
}

static int unpacks(const void *data, size_t len) {
  struct err e;
  ProtobufCMessage *m = pb_unpack(&model__service_spec__descriptor, data, len, &e);
  if (m)
    protobuf_c_message_free_unpacked(m, NULL);
  return m != NULL;
}

static void hostile_messages_are_refused(void **state) {
  (void)state;
  assert_true(unpacks("", 0));
  assert_true(unpacks("\x0a\x03"
                      "api",
                      5));
  assert_false(unpacks("\x0a\x03"
                       "a\0i",
                       5));                     /* a NUL in a string */
  assert_false(unpacks("\x0a\x02\xff\xff", 4)); /* not UTF-8 */
  assert_false(unpacks("\x0a\x7f"
                       "api",
                       5));             /* longer than it is */
  assert_false(unpacks("\x0b", 1));     /* a group */
  assert_false(unpacks("\x00\x00", 2)); /* field 0 */
  assert_false(unpacks("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 11));
  assert_false(unpacks("\xc2\x01\x04\x12\x02\xff\xff", 7)); /* deeper: resources.…: a length where a number belongs */
}

static void what_would_take_too_long_or_too_much_to_unpack_is_refused(void **state) {
  (void)state;
  assert_false(unpacks("\x0a\x01"
                       "a"
                       "\x0a\x01"
                       "b",
                       6)); /* a name, and another */
  size_t len = (size_t)8 << 20;
  uint8_t *wire = malloc(len);
  assert_non_null(wire);
  const ProtobufCFieldDescriptor *mounts = protobuf_c_message_descriptor_get_field_by_name(&model__service_spec__descriptor, "mounts");
  assert_true(mounts->label == PROTOBUF_C_LABEL_REPEATED && mounts->type == PROTOBUF_C_TYPE_MESSAGE && mounts->id >= 16);
  const uint8_t unit[3] = {(uint8_t)(mounts->id << 3 | 2 | 0x80), (uint8_t)(mounts->id >> 4), 0};
  for (size_t i = 0; i < len / 3; i++)
    memcpy(wire + 3 * i, unit, 3);
  assert_true(unpacks(wire, 3 * 10000)); /* ten thousand empty messages are odd, and harmless */
  assert_false(unpacks(wire, len / 3 * 3));
  const uint8_t unknown[3] = {0xf8, 0x7f, 0x01}; /* a number that nobody knows */
  for (size_t i = 0; i < len / 3; i++)
    memcpy(wire + 3 * i, unknown, 3);
  assert_true(unpacks(wire, 3 * 10000));
  assert_false(unpacks(wire, len / 3 * 3));
  free(wire);
}

static void unknown_fields_survive_a_round_trip(void **state) {
  (void)state;
  const uint8_t wire[] = {0x0a, 0x03, 'a', 'p', 'i', 0xfa, 0x3e, 0x02, 'h', 'i'}; /* name, then field 1007 */
  struct err e;
  ProtobufCMessage *m = pb_unpack(&model__service_spec__descriptor, wire, sizeof wire, &e);
  assert_non_null(m);
  ProtobufCMessage *copy = pb_clone(m);
  assert_true(pb_equal(m, copy));
  struct buf packed = BUF_INIT(1000);
  assert_int_equal(pb_pack(copy, &packed), 0);
  assert_int_equal(packed.len, sizeof wire);
  assert_memory_equal(packed.data, wire, sizeof wire);
  buf_free(&packed);
  protobuf_c_message_free_unpacked(m, NULL);
  protobuf_c_message_free_unpacked(copy, NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(err_carries_code_text_and_context),   cmocka_unit_test(err_context_never_crowds_out_the_cause),
      cmocka_unit_test(err_codes_survive_the_wire),          cmocka_unit_test(buf_grows_up_to_its_cap_and_stays_failed),
      cmocka_unit_test(hashes_and_base64_are_the_standards), cmocka_unit_test(sealed_opens_only_as_it_was),
      cmocka_unit_test(crc32c_has_the_values_of_rfc_3720),   cmocka_unit_test(random_ids_are_long_and_differ),
      cmocka_unit_test(utf8_is_checked_as_unicode_has_it),   cmocka_unit_test(texts_are_made_utf8),
      cmocka_unit_test(hostile_messages_are_refused),        cmocka_unit_test(what_would_take_too_long_or_too_much_to_unpack_is_refused),
      cmocka_unit_test(unknown_fields_survive_a_round_trip),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
