/* Docker's answers made into plain values. Nothing is believed: a wrong type, an absurd length or a missing field makes the value absent
 * or the whole answer refused; nothing here can be made to write past its end.
 * Threads: pure functions. */
#ifndef ORCA_AGENT_DOCKER_PARSE_H
#define ORCA_AGENT_DOCKER_PARSE_H

#include <jansson.h>

#include "common/err.h"
#include "orca-agent/container.h"
#include "orca-agent/core.h"

struct docker_self { /* whose containers are ours */
  const char *cluster_id, *node;
};

/* GET /containers/json: *ret is the caller's to free. */
int docker_parse_list(const json_t *json, const struct docker_self *self, struct agent_container **ret, size_t *ret_count, struct err *err);
/* GET /containers/ID/json */
int docker_parse_inspect(const json_t *json, const struct docker_self *self, struct agent_container *ret, struct err *err);
/* GET /networks */
int docker_parse_networks(const json_t *json, const struct docker_self *self, struct agent_found_network **ret, size_t *ret_count, struct err *err);
/* GET /images/REF/json: the id, and NAME@sha256:… of ref's own repository ("" when it never was in a registry). */
int docker_parse_image(const json_t *json, const char *ref, char id[AGENT_IMAGE_MAX], char digest[AGENT_IMAGE_MAX], struct err *err);
/* One of GET /events: false when it is not one of ours or none that matters. container_id points into json. */
bool docker_parse_event(const json_t *json, const struct docker_self *self, struct agent_event *ret);
/* 2026-11-21T12:00:00.123456789Z → Unix ns; 0 for Docker's "never" (year 1) and for anything else. */
int64_t docker_parse_time(const char *text);

/* Progress of a pull, summed over its layers. */
#define DOCKER_PULL_LAYERS 128
struct docker_pull {
  struct {
    char id[32];
    int64_t current, total;
    bool done;
  } layers[DOCKER_PULL_LAYERS];
  size_t count;
  char error[256]; /* "" while all is well */
};
/* One line; true when the text of the progress may have changed. */
bool docker_pull_line(struct docker_pull *pull, const json_t *line);
void docker_pull_text(const struct docker_pull *pull, char out[64]); /* "3 of 7 layers, 41 %" */

#endif
