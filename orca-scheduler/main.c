/* orca-scheduler: turns what people want into instances on nodes. README.md has the map. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/bus.h"
#include "common/daemon/daemon.h"
#include "orca-scheduler/gateway_link.h"
#include "orca-scheduler/sched_store.h"

static void on_status(void *arg, const char *text) {
  daemon_status(arg, text);
}

static void free_addresses(struct bus_address *addresses, size_t count) {
  for (size_t i = 0; addresses && i < count; i++)
    free((char *)(uintptr_t)addresses[i].endpoint);
  free(addresses);
}

/* The stores of all masters, this node's own first. */
static struct bus_address *store_addresses(const struct node_config *config, struct err *err) {
  struct bus_address *list = calloc(config->master_count ? config->master_count : 1, sizeof *list);
  size_t n = 0;
  for (int own = 1; own >= 0 && list; own--)
    for (size_t i = 0; i < config->master_count; i++) {
      const struct node_master *master = &config->masters[i];
      if ((strcmp(master->name, config->name) == 0) != own)
        continue;
      char *endpoint;
      if (!*master->store_key ||
          asprintf(&endpoint, strchr(master->address, ':') ? "tcp://[%s]:%u" : "tcp://%s:%u", master->address, config->port_store) < 0) {
        free_addresses(list, n);
        err_set(err, ERR_INVALID, "node.toml: master %s has no store_key", master->name);
        return NULL;
      }
      list[n++] = (struct bus_address){endpoint, master->store_key};
    }
  if (!list || !n) {
    free_addresses(list, n);
    err_set(err, ERR_INVALID, "node.toml names no master");
    return NULL;
  }
  return list;
}

int main(int argc, char **argv) {
  struct daemon d;
  struct err err;
  if (!daemon_start(&d, argc, argv, "scheduler"))
    return d.exit_code;
  /* One scheduler per node: that is what lets a restarted one take its predecessor's leadership at once. */
  struct bus_address *stores = daemon_hold(&d, &err) < 0 ? NULL : store_addresses(&d.config, &err);
  struct bus *bus = stores ? daemon_bus(&d, &err) : NULL;
  const struct sched_store_config config = {
      .node = d.config.name, .stores = stores, .store_count = d.config.master_count, .status = on_status, .status_arg = &d};
  struct sched_store *store = bus ? sched_store_new(d.loop, bus, &config, &err) : NULL;
  free_addresses(stores, d.config.master_count);
  struct gateway_link *link = store ? gateway_link_open(d.loop, bus, &d.config, store, &err) : NULL;
  int code;
  if (link) {
    daemon_ready(&d, "standby");
    code = daemon_run(&d);
  } else {
    code = daemon_fail(&d, &err);
  }
  gateway_link_close(link);
  sched_store_free(store);
  bus_free(bus);
  daemon_fini(&d);
  return code;
}
