#include "common/crypto/wiping_heap.h"
#include "common/daemon/daemon.h"
#include "orca-agent/agent.h"

int main(int argc, char **argv) {
  struct daemon d;
  if (!daemon_start(&d, argc, argv, "agent"))
    return d.exit_code;
  struct agent a;
  struct err err;
  if (agent_open(&a, &d, &err) < 0) {
    daemon_fail(&d, &err);
  } else {
    daemon_ready(&d, "waiting for Docker and a master");
    daemon_run(&d);
  }
  agent_close(&a);
  daemon_fini(&d);
  return d.exit_code;
}
