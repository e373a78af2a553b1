/* The set of routes: full tables, changes, settings, and their form on disk. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "common/bus/pb.h"
#include "orca-proxy/routes.h"

#define TEXT(s) ((char *)(uintptr_t)(const void *)(s))

static Node__Route route(const char *project, const char *service) {
  Node__Route r = NODE__ROUTE__INIT;
  r.project = TEXT(project);
  r.service = TEXT(service);
  return r;
}

static void give(struct routes *r, Node__RouteTable *t, Node__Route *list, size_t count) {
  Node__Route *all[8];
  struct err err;
  for (size_t i = 0; i < count; i++)
    all[i] = &list[i];
  t->routes = all;
  t->n_routes = count;
  int rc = routes_apply(r, t, &err);
  t->routes = NULL;
  t->n_routes = 0;
  if (rc < 0)
    fail_msg("%s", err.msg);
}

static void names(const struct routes *r, const char *expected) {
  struct buf text = BUF_INIT(256);
  for (size_t i = 0; i < routes_count(r); i++)
    buf_printf(&text, "%s/%s ", routes_list(r)[i]->project, routes_list(r)[i]->service);
  assert_string_equal(buf_str(&text), expected);
  buf_free(&text);
}

static void tables_and_changes(void **state) {
  (void)state;
  struct routes *r = routes_new();
  struct err err;
  Node__RouteTable change = NODE__ROUTE_TABLE__INIT, full = NODE__ROUTE_TABLE__INIT;
  assert_int_equal(routes_apply(r, &change, &err), -1);
  assert_int_equal(err.code, ERR_CONFLICT);
  assert_int_equal(routes_http_port(r), 0);
  assert_string_equal(routes_log_level(r), "");
  PB_SET(&full, full, true);
  PB_SET(&full, version, 3);
  give(r, &full, (Node__Route[]){route("b", "x"), route("a", "y"), route("a", "x"), route("a", "y")}, 4);
  names(r, "a/x a/y b/x ");
  assert_int_equal(routes_version(r), 3);
  PB_SET(&change, version, 4);
  char *removed[] = {TEXT("a/x"), TEXT("none"), TEXT("a/none"), TEXT("ab/x")};
  change.removed = removed;
  change.n_removed = 4;
  give(r, &change, (Node__Route[]){route("a", "a"), route("b", "x")}, 2);
  names(r, "a/a a/y b/x ");
  /* One without a name spoils all of its table. */
  Node__Route nameless = route("a", ""), *list[] = {&nameless};
  Node__RouteTable bad = NODE__ROUTE_TABLE__INIT;
  PB_SET(&bad, full, true);
  bad.routes = list;
  bad.n_routes = 1;
  assert_int_equal(routes_apply(r, &bad, &err), -1);
  assert_int_equal(err.code, ERR_INVALID);
  names(r, "a/a a/y b/x ");
  assert_int_equal(routes_version(r), 4);
  routes_free(r);
}

static void settings_stay_until_told(void **state) {
  (void)state;
  struct routes *r = routes_new();
  char *trusted[] = {TEXT("10.0.0.0/8"), TEXT("fd00::/8")}, *listen[] = {TEXT("10.0.0.1:6877")}, *const * told;
  Node__RouteTable full = NODE__ROUTE_TABLE__INIT, change = NODE__ROUTE_TABLE__INIT;
  PB_SET(&full, full, true);
  PB_SET(&full, http_port, 8080);
  full.trusted_proxies = trusted;
  full.n_trusted_proxies = 2;
  full.api_listen = listen;
  full.n_api_listen = 1;
  full.log_level = TEXT("debug");
  give(r, &full, (Node__Route[]){route("a", "x")}, 1);
  give(r, &change, NULL, 0);
  assert_int_equal(routes_trusted(r, &told), 2);
  assert_string_equal(told[1], "fd00::/8");
  assert_int_equal(routes_api_listen(r, &told), 1);
  assert_string_equal(told[0], "10.0.0.1:6877");
  assert_string_equal(routes_log_level(r), "debug");
  assert_int_equal(routes_http_port(r), 8080);
  PB_SET(&change, settings_changed, true);
  PB_SET(&change, http_port, 70000);
  give(r, &change, NULL, 0);
  assert_int_equal(routes_trusted(r, &told), 0);
  assert_int_equal(routes_api_listen(r, &told), 0);
  assert_string_equal(routes_log_level(r), "");
  assert_int_equal(routes_http_port(r), 0); /* no port at all */
  names(r, "a/x ");
  routes_free(r);
}

static void a_file_holds_all_or_is_damaged(void **state) {
  (void)state;
  struct routes *r = routes_new();
  struct buf file = BUF_INIT(ROUTES_FILE_MAX), again = BUF_INIT(ROUTES_FILE_MAX), small = BUF_INIT(20);
  struct err err;
  char *trusted[] = {TEXT("10.0.0.0/8")};
  Node__RouteTable full = NODE__ROUTE_TABLE__INIT;
  PB_SET(&full, full, true);
  PB_SET(&full, version, 9);
  PB_SET(&full, http_port, 8080);
  full.trusted_proxies = trusted;
  full.n_trusted_proxies = 1;
  give(r, &full, (Node__Route[]){route("a", "x"), route("a", "y")}, 2);
  assert_int_equal(routes_to_file(r, &file, &err), 0);
  assert_int_equal(routes_to_file(r, &small, &err), -1);
  Node__RouteTable *read = routes_from_file(file.data, file.len, &err);
  assert_non_null(read);
  struct routes *other = routes_new();
  assert_int_equal(routes_apply(other, read, &err), 0);
  assert_int_equal(routes_to_file(other, &again, &err), 0);
  assert_int_equal(again.len, file.len);
  assert_memory_equal(again.data, file.data, file.len);
  node__route_table__free_unpacked(read, NULL);
  for (size_t len = 0; len < file.len; len++)
    assert_null(routes_from_file(file.data, len, &err));
  for (size_t i = 0; i < file.len; i++) {
    file.data[i] ^= 0x10;
    assert_null(routes_from_file(file.data, file.len, &err));
    assert_int_equal(err.code, ERR_CORRUPT);
    file.data[i] ^= 0x10;
  }
  buf_free(&file);
  buf_free(&again);
  buf_free(&small);
  routes_free(r);
  routes_free(other);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(tables_and_changes), cmocka_unit_test(settings_stay_until_told),
                                     cmocka_unit_test(a_file_holds_all_or_is_damaged)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
