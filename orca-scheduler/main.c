/* orca-scheduler: turns what people want into instances on nodes. README.md has the map. */
#include "common/bus/bus.h"
#include "common/daemon/daemon.h"
#include "common/daemon/masters.h"
#include "orca-scheduler/gateway_link.h"
#include "orca-scheduler/sched_store.h"

static void on_status(void *arg, const char *text) {
  daemon_status(arg, text);
}

int main(int argc, char **argv) {
  struct daemon d;
  struct err err;
  if (!daemon_start(&d, argc, argv, "scheduler"))
    return d.exit_code;
  /* One scheduler per node: that is what lets a restarted one take its predecessor's leadership at once. */
  struct masters stores = {0};
  struct bus *bus = daemon_hold(&d, &err) < 0 || masters_stores(&d.config, &stores, &err) < 0 ? NULL : daemon_bus(&d, &err);
  const struct sched_store_config config = {
      .node = d.config.name, .stores = stores.list, .store_count = stores.count, .status = on_status, .status_arg = &d};
  struct sched_store *store = bus ? sched_store_new(d.loop, bus, &config, &err) : NULL;
  masters_free(&stores);
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
