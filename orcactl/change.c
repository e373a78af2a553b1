#include "orcactl/change.h"

#include <stdio.h>
#include <stdlib.h>

#include "orcactl/api.h"
#include "orcactl/text.h"

static void say(const json_t *reply, const char *said) {
  char *service = text_cleaned(api_str(reply, "service"));
  if (json_is_false(json_object_get(reply, "changed")))
    printf("%s: nothing to do, it is so already\n", service ? service : "");
  else
    printf("%s: %s\n", service ? service : "", said);
  free(service);
}

int change_services(struct ctl *ctl, int names, const char *method, const char *tail, const char *query, const json_t *body, const char *said) {
  int worst = CTL_OK;
  json_t *all = json_array();
  for (int i = 0; i < names; i++) {
    char path[512];
    struct err err;
    json_t *reply = NULL;
    if (api_service_path(ctl->argv[i], tail, query, path, &err) < 0 || api_call(ctl, method, path, body, &reply, &err) < 0) {
      worst = ctl_fail(ctl, &err);
      if (worst == CTL_UNREACHABLE)
        break;
      continue;
    }
    if (ctl->output == CTL_JSON)
      json_array_append(all, reply);
    else
      say(reply, said);
    json_decref(reply);
  }
  if (ctl->output == CTL_JSON)
    ctl_print_json(ctl, json_array_size(all) == 1 ? json_array_get(all, 0) : all);
  json_decref(all);
  return worst;
}
