/* orca-keeper: probes the node's containers and tells its agent the verdicts. README.md has the map. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/bus/bus.h"
#include "common/daemon/daemon.h"
#include "orca-keeper/keeper_link.h"

static int read_public_key(const char *dir, const char *name, char out[BUS_KEY_LEN + 1], struct err *err) {
  char path[4096];
  if (snprintf(path, sizeof path, "%s/%s.pub", dir, name) >= (int)sizeof path)
    return err_set(err, ERR_INVALID, "key_dir is too long");
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return err_errno(err, errno, "%s", path);
  char text[BUS_KEY_LEN + 2] = "";
  ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  if (n < BUS_KEY_LEN || (text[BUS_KEY_LEN] && text[BUS_KEY_LEN] != '\n'))
    return err_set(err, ERR_INVALID, "%s: not a key of %d characters", path, BUS_KEY_LEN);
  memcpy(out, text, BUS_KEY_LEN);
  out[BUS_KEY_LEN] = 0;
  return 0;
}

int main(int argc, char **argv) {
  struct daemon d;
  struct err err;
  if (!daemon_start(&d, argc, argv, "keeper"))
    return d.exit_code;
  char endpoint[4096], agent_key[BUS_KEY_LEN + 1];
  int rc = daemon_hold(&d, &err);
  if (rc == 0)
    rc = read_public_key(d.config.key_dir, "agent", agent_key, &err);
  if (rc == 0 && snprintf(endpoint, sizeof endpoint, "ipc://%s/agent.sock", d.config.run_dir) >= (int)sizeof endpoint)
    rc = err_set(&err, ERR_INVALID, "run_dir is too long");
  struct bus *bus = rc == 0 ? daemon_bus(&d, &err) : NULL;
  const struct bus_address agent = {endpoint, agent_key};
  struct keeper_link *rpc = bus ? keeper_link_new(d.loop, bus, &agent, &err) : NULL;
  int code;
  if (rpc) {
    daemon_ready(&d, "probing");
    code = daemon_run(&d);
  } else {
    code = daemon_fail(&d, &err);
  }
  keeper_link_free(rpc);
  bus_free(bus);
  daemon_fini(&d);
  return code;
}
