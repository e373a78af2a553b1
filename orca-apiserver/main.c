/* orca-apiserver: REST for people, the node gateway for daemons. README.md has the map. */
#include <stdio.h>
#include <string.h>

#include "common/crypto/wiping_heap.h"
#include "common/daemon/daemon.h"
#include "common/daemon/masters.h"
#include "common/log.h"
#include "orca-apiserver/api.h"
#include "orca-apiserver/http.h"
#include "orca-apiserver/listeners.h"
#include "orca-apiserver/no_gnutls.h"
#include "orca-apiserver/store_link.h"

/* REST is for this machine: further away needs TLS, which is orca-proxy's. Several nodes on one machine have a loopback address each. */
static const char *api_address(const struct node_config *config) {
  return strncmp(config->address, "127.", 4) == 0 ? config->address : "127.0.0.1";
}

static int run(struct daemon *d) {
  struct err err;
  struct api api;
  struct masters stores = {0};
  struct api_http *http = NULL;
  struct store_link *link = NULL;
  char own[80];
  api_init(&api, d->loop, &d->config);
  api.bus = daemon_hold(d, &err) < 0 || keyring_open(&api.keyring, d->config.key_dir, &err) < 0 ? NULL : daemon_bus(d, &err);
  snprintf(own, sizeof own, "%s:%u", api_address(&d->config), d->config.port_api);
  if (!api.bus || masters_stores(&d->config, &stores, &err) < 0 || !(http = api_http_open(&api, api_address(&d->config), d->config.port_api, &err)) ||
      !(api.listeners = api_listeners_new(&api, own, api_http_accepted, http, &err)) ||
      !(link = store_link_open(&api, stores.list, stores.count, &err))) {
    daemon_fail(d, &err);
  } else {
    char status[96];
    snprintf(status, sizeof status, "REST on %s", own);
    daemon_ready(d, status);
    daemon_run(d);
  }
  api_listeners_free(api.listeners);
  api.listeners = NULL;
  api_http_close(http);
  store_link_close(link);
  masters_free(&stores);
  bus_free(api.bus);
  api_fini(&api);
  return d->exit_code;
}

int main(int argc, char **argv) {
  struct daemon d;
  if (!daemon_start(&d, argc, argv, "apiserver"))
    return d.exit_code;
  int rc = run(&d);
  daemon_fini(&d);
  return rc;
}
