#include "common/daemon/masters.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int masters_endpoint(const char *address, uint16_t port, char out[MASTERS_ENDPOINT_MAX], struct err *err) {
  int n = snprintf(out, MASTERS_ENDPOINT_MAX, strchr(address, ':') ? "tcp://[%s]:%u" : "tcp://%s:%u", address, port);
  return n < MASTERS_ENDPOINT_MAX ? 0 : err_set(err, ERR_INVALID, "node.toml: the address %.40s… is too long", address);
}

static int add(struct masters *m, const struct node_master *master, uint16_t port, const char *key, struct err *err) {
  if (masters_endpoint(master->address, port, m->endpoints[m->count], err) < 0)
    return -1;
  m->list[m->count] = (struct bus_address){.endpoint = m->endpoints[m->count], .server_key = key};
  m->count++;
  return 0;
}

static int begin(const struct node_config *config, struct masters *m, struct err *err) {
  *m = (struct masters){.list = calloc(config->master_count + 1, sizeof *m->list),
                        .endpoints = calloc(config->master_count + 1, sizeof *m->endpoints)};
  if (m->list && m->endpoints)
    return 0;
  masters_free(m);
  return err_set(err, ERR_MEMORY, "no memory for addresses");
}

int masters_gateways(const struct node_config *config, struct masters *ret, struct err *err) {
  int rc = begin(config, ret, err);
  for (size_t i = 0; i < config->master_count && rc == 0; i++)
    rc = add(ret, &config->masters[i], config->port_gateway, config->masters[i].key, err);
  if (rc < 0)
    masters_free(ret);
  return rc;
}

int masters_stores(const struct node_config *config, struct masters *ret, struct err *err) {
  int rc = begin(config, ret, err);
  for (int own = 1; own >= 0; own--)
    for (size_t i = 0; i < config->master_count && rc == 0; i++) {
      const struct node_master *m = &config->masters[i];
      if ((strcmp(m->name, config->name) == 0) == own && *m->store_key)
        rc = add(ret, m, config->port_store, m->store_key, err);
    }
  if (rc == 0 && !ret->count)
    rc = err_set(err, ERR_INVALID, "node.toml names no master with a store_key: this runs on a master");
  if (rc < 0)
    masters_free(ret);
  return rc;
}

void masters_free(struct masters *m) {
  free(m->list);
  free(m->endpoints);
  *m = (struct masters){0};
}
