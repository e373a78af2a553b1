/* The proxy's file of routes, and what a master says of them: damaged bytes are refused whole, and what was taken can be written and read again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "orca-proxy/routes.h"
#include "tests/fuzz/fuzz.h"

static void again(const struct routes *r) {
  struct buf file = BUF_INIT(ROUTES_FILE_MAX);
  struct err err;
  if (routes_to_file(r, &file, &err) < 0)
    abort();
  Node__RouteTable *read = routes_from_file(file.data, file.len, &err);
  struct routes *other = routes_new();
  if (!read || !other || routes_apply(other, read, &err) < 0 || routes_count(other) != routes_count(r))
    abort();
  node__route_table__free_unpacked(read, NULL);
  routes_free(other);
  buf_free(&file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct err err;
  struct routes *r = routes_new();
  if (!r)
    abort();
  Node__RouteTable *file = routes_from_file(data, size, &err);
  if (file && routes_apply(r, file, &err) == 0)
    again(r);
  if (file)
    node__route_table__free_unpacked(file, NULL);
  /* Two messages, the first byte says where the one ends. */
  size_t first = size ? data[0] % size : 0;
  for (int i = 0; size && i < 2; i++) {
    const uint8_t *at = i ? data + 1 + first : data + 1;
    size_t len = i ? size - 1 - first : first;
    Node__RouteTable *t = (Node__RouteTable *)(void *)pb_unpack(&node__route_table__descriptor, at, len, &err);
    if (t && routes_apply(r, t, &err) == 0)
      again(r);
    for (size_t n = 1; n < routes_count(r); n++)
      if (strcmp(routes_list(r)[n - 1]->project, routes_list(r)[n]->project) > 0)
        abort();
    if (t)
      node__route_table__free_unpacked(t, NULL);
  }
  routes_free(r);
  return 0;
}
