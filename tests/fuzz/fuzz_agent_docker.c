/* Docker's answers: the first byte picks which kind. */
#include <stdint.h>
#include <stdlib.h>

#include "orca-agent/docker_auth.h"
#include "orca-agent/docker_parse.h"
#include "common/image_ref.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const struct docker_self self = {"c1", "n1"};
  if (size < 2 || size > 1 << 16)
    return 0;
  json_t *json = json_loadb((const char *)data + 1, size - 1, JSON_DECODE_ANY, NULL);
  if (!json)
    return 0;
  struct err err;
  switch (data[0] % 7) {
  case 0: {
    struct agent_container *list = NULL;
    size_t count = 0;
    if (docker_parse_list(json, &self, &list, &count, &err) == 0)
      free(list);
    break;
  }
  case 1: {
    struct agent_container c;
    docker_parse_inspect(json, &self, &c, &err);
    break;
  }
  case 2: {
    struct agent_found_network *list = NULL;
    size_t count = 0;
    if (docker_parse_networks(json, &self, &list, &count, &err) == 0)
      free(list);
    break;
  }
  case 3: {
    char id[AGENT_IMAGE_MAX], digest[AGENT_IMAGE_MAX];
    docker_parse_image(json, "busybox", id, digest, &err);
    break;
  }
  case 4: {
    struct agent_event ev;
    docker_parse_event(json, &self, &ev);
    break;
  }
  case 5: {
    struct docker_pull pull = {.count = 0};
    char text[64];
    for (size_t n = 0; n < json_array_size(json); n++)
      docker_pull_line(&pull, json_array_get(json, n));
    docker_pull_text(&pull, text);
    break;
  }
  case 6:
    docker_auth_free(docker_auth_header_from(json, "docker.io"));
    break;
  }
  struct image_ref ref;
  if (json_is_string(json))
    image_ref_parse(json_string_value(json), &ref);
  json_decref(json);
  return 0;
}
