/* [[token]]: what its value must be, that only its hash is left, and that nothing ever quotes it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/crypto/crypto.h"
#include "common/spec/spec.h"
#include "tests/unit/spec/faults.h"

#define GOOD "0123456789abcdefghijklmnopqrstuvwxyz"

static const char *value;

static const char *lookup(const char *name) {
  return strcmp(name, "T") == 0 ? value : NULL;
}

/* Reads and resolves; the set is the caller's. */
static int resolve(const char *tokens, struct spec_set *set, struct spec_faults *faults) {
  char text[2048];
  *set = (struct spec_set){0};
  snprintf(text, sizeof text, "[cluster]\nname = \"c\"\n%s", tokens);
  spec_parse_cluster("cluster.toml", text, strlen(text), &set->cluster, faults);
  return faults->count ? -1 : spec_resolve_env(set, lookup, faults);
}

static void only_the_hash_is_left(void **state) {
  (void)state;
  struct spec_set set, again = {0};
  struct spec_faults faults = {0};
  uint8_t hash[32];
  value = GOOD;
  assert_int_equal(resolve("[[token]]\nname = \"ci\"\nvalue = \"${env.T}\"\nrole = \"deployer\"\nprojects = [\"shop\"]\n", &set, &faults), 0);
  Model__TokenDecl *token = set.cluster->tokens[0];
  crypto_sha256(GOOD, strlen(GOOD), hash);
  assert_null(token->value);
  assert_int_equal(token->hash.len, 32);
  assert_memory_equal(token->hash.data, hash, 32);
  assert_string_equal(token->role, "deployer");
  assert_string_equal(token->projects[0], "shop");
  json_t *json = spec_set_to_json(&set);
  char *text = json_dumps(json, JSON_COMPACT);
  assert_null(strstr(text, GOOD));
  assert_null(strstr(text, "value"));
  assert_int_equal(spec_set_from_json(json, &again, &faults), 0);
  assert_memory_equal(again.cluster->tokens[0]->hash.data, hash, 32);
  free(text);
  json_decref(json);
  spec_set_free(&set);
  spec_set_free(&again);
}

static void a_dollar_and_a_brace_are_its_own(void **state) {
  (void)state;
  struct spec_set set;
  struct spec_faults faults = {0};
  uint8_t hash[32];
  value = GOOD "${env.T}$${";
  assert_int_equal(resolve("[[token]]\nname = \"ci\"\nvalue = \"${env.T}\"\nrole = \"admin\"\n", &set, &faults), 0);
  crypto_sha256(value, strlen(value), hash);
  assert_memory_equal(set.cluster->tokens[0]->hash.data, hash, 32);
  spec_set_free(&set);
}

static void what_is_weak_or_wrong_is_refused(void **state) {
  (void)state;
  static const struct {
    const char *toml, *env, *says;
  } cases[] = {
      {"name = \"a\"\nvalue = \"${env.T}\"\nrole = \"admin\"", "short-1234567890", "too weak"},
      {"name = \"a\"\nvalue = \"${env.T}\"\nrole = \"admin\"", "qwqwqwqwqwqwqwqwqwqwqwqwqwqwqwqwqwqwqwqwqwqwqw", "too weak"},
      {"name = \"a\"\nvalue = \"${env.T}\"\nrole = \"admin\"", GOOD " x", "without spaces"},
      {"name = \"a\"\nvalue = \"${env.T}\"\nrole = \"admin\"", GOOD "\xc3\xa4", "printable ASCII"},
      {"name = \"a\"\nvalue = \"${env.T}\"\nrole = \"admin\"", NULL, "has no variable T"},
      {"name = \"a\"\nvalue = \"hunter2hunter2\"\nrole = \"admin\"", NULL, "too weak"},
      {"name = \"a\"\nvalue = \"${secrets.T}\"\nrole = \"admin\"", NULL, "secret"},
      {"name = \"a\"\nrole = \"admin\"", NULL, "`value` is needed"},
      {"name = \"a\"\nvalue = \"" GOOD "\"\nhash = \"" GOOD "\"\nrole = \"admin\"", NULL, "hash"},
      {"name = \"a\"\nhash = \"00\"\nrole = \"admin\"", NULL, "hash"},
      {"name = \"a\"\nvalue = \"" GOOD "\"\nrole = \"root\"", NULL, "role"},
      {"name = \"A b\"\nvalue = \"" GOOD "\"\nrole = \"admin\"", NULL, "name"},
      {"name = \"a\"\nvalue = \"" GOOD "\"\nrole = \"admin\"\nprojects = [\"../x\"]", NULL, "projects"},
      {"name = \"a\"\nvalue = \"" GOOD "\"", NULL, "role"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct spec_set set;
    struct spec_faults faults = {0};
    char toml[1024];
    struct buf text = BUF_INIT(65536);
    value = cases[i].env;
    snprintf(toml, sizeof toml, "[[token]]\n%s\n", cases[i].toml);
    assert_int_equal(resolve(toml, &set, &faults), -1);
    print_faults(&faults, &text);
    if (!strstr(buf_str(&text), cases[i].says))
      fail_msg("%s: %s", cases[i].toml, buf_str(&text));
    if (value)
      assert_null(strstr(buf_str(&text), value));
    assert_null(strstr(buf_str(&text), "hunter2"));
    assert_null(strstr(buf_str(&text), GOOD));
    buf_free(&text);
    spec_faults_free(&faults);
    spec_set_free(&set);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(only_the_hash_is_left),
      cmocka_unit_test(a_dollar_and_a_brace_are_its_own),
      cmocka_unit_test(what_is_weak_or_wrong_is_refused),
  };
  return cmocka_run_group_tests_name("token", tests, NULL, NULL);
}
