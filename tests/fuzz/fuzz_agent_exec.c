/* What a master asks to be run in a container: whatever the message, it is refused, or becomes a request to Docker of one head and one JSON. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "orca-agent/exec_request.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct err err;
  Node__StartExec *m = (Node__StartExec *)(void *)pb_unpack(&node__start_exec__descriptor, data, size, &err);
  if (!m)
    return 0;
  if (exec_request_check(m, &err) == 0) {
    json_t *json = exec_request_json(m);
    if (!json || !json_is_array(json_object_get(json, "Cmd")) || !json_array_size(json_object_get(json, "Cmd")))
      abort();
    json_decref(json);
  }
  node__start_exec__free_unpacked(m, NULL);
  return 0;
}
