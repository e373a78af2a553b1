/* Images: one state per revision, shared by its instances on this node. What a revision runs is settled once, by the agent that
 * resolves it first, and reported; from then on the revision's own answer is used.
 *
 *   given (resolved before)   look; missing: pull NAME@digest, or fail for a local id
 *   always, forced            pull, look (a local build may stand in, unless the spec itself says always)
 *   if-absent                 look; missing: pull, look
 *   never                     look */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "orca-agent/core_internal.h"
#include "common/image_ref.h"

#define FIRST_RETRY INT64_C(1000000000)

static void set_source(struct agent_image *image, const Node__Assignment *a) {
  const Model__ServiceSpec *spec = a->revision->spec;
  const char *given = PB_STR(a->image);
  image->given = *given != 0;
  agent_copy(image->ref, sizeof image->ref, image->given ? given : PB_STR(spec->image));
  image->policy = spec->has_pull ? spec->pull : image_ref_floats(image->ref) ? MODEL__PULL_POLICY__PULL_ALWAYS : MODEL__PULL_POLICY__PULL_IF_ABSENT;
  if (PB_GET(a->revision, force_pull, false) && image->policy != MODEL__PULL_POLICY__PULL_NEVER)
    image->policy = MODEL__PULL_POLICY__PULL_ALWAYS;
  image->implicit = image->policy == MODEL__PULL_POLICY__PULL_ALWAYS && !(spec->has_pull && spec->pull == MODEL__PULL_POLICY__PULL_ALWAYS);
  if (image->given && image->policy == MODEL__PULL_POLICY__PULL_ALWAYS)
    image->policy = MODEL__PULL_POLICY__PULL_IF_ABSENT; /* a digest doesn't change */
}

bool agent_image_is_of(const struct agent_image *image, const struct agent_instance *i) {
  const Model__Revision *revision = i->assigned ? i->assigned->revision : NULL;
  return revision && image->revision == revision->number && image->created_ms == revision->created_ms &&
         strncmp(image->spec_hash, PB_STR(revision->spec_hash), sizeof image->spec_hash - 1) == 0 && strcmp(image->service, i->service) == 0 &&
         strcmp(image->project, i->project) == 0;
}

struct agent_image *agent_image_for(struct agent_step *s, const struct agent_instance *i) {
  struct agent_core *core = s->core;
  const Node__Assignment *a = i->assigned;
  struct agent_image *image = NULL;
  for (size_t n = 0; n < core->image_count && !image; n++)
    if (agent_image_is_of(core->images[n], i))
      image = core->images[n];
  if (!image) {
    if (core->image_count == core->image_size) {
      size_t size = core->image_size ? core->image_size * 2 : 8;
      struct agent_image **list = reallocarray(core->images, size, sizeof *list);
      if (!list)
        return NULL;
      core->images = list;
      core->image_size = size;
    }
    image = calloc(1, sizeof *image);
    if (!image)
      return NULL;
    agent_copy(image->project, sizeof image->project, i->project);
    agent_copy(image->service, sizeof image->service, i->service);
    image->revision = a->revision->number;
    image->created_ms = a->revision->created_ms;
    agent_copy(image->spec_hash, sizeof image->spec_hash, a->revision->spec_hash);
    core->images[core->image_count++] = image;
    set_source(image, a);
    return image;
  }
  /* Another node was first: its answer holds for whatever is made from now on. */
  const char *given = PB_STR(a->image);
  bool busy = image->state == AGENT_IMAGE_LOOKING || image->state == AGENT_IMAGE_PULLING;
  if (*given && !busy && strcmp(image->given ? image->ref : image->run, given) != 0) {
    set_source(image, a);
    image->state = AGENT_IMAGE_NEW;
    image->pulled = image->fallback = false;
  }
  return image;
}

bool agent_image_wanted(const struct agent_core *core, const struct agent_image *image) {
  for (size_t n = 0; n < core->count; n++) {
    const struct agent_instance *i = core->instances[n];
    if (i->want == AGENT_WANT_RUN && agent_image_is_of(image, i))
      return true;
  }
  return image->op_id != 0;
}

static void ask(struct agent_step *s, struct agent_image *image, enum agent_action_kind kind) {
  struct agent_action *act = agent_act(s, kind);
  if (!act)
    return;
  agent_copy(act->name, sizeof act->name, image->ref);
  act->op = image->op_id = ++s->core->next_op;
  image->progress[0] = 0;
  image->state = kind == AGENT_ACT_IMAGE_PULL ? AGENT_IMAGE_PULLING : AGENT_IMAGE_LOOKING;
}

void agent_image_reconcile(struct agent_step *s, struct agent_image *image) {
  bool due = image->state == AGENT_IMAGE_NEW || (image->state == AGENT_IMAGE_FAILED && s->now.mono_ns >= image->next_try);
  if (s->core->docker != AGENT_DOCKER_UP || !due)
    return;
  image->state = AGENT_IMAGE_NEW; /* what nobody wants any more is not due again and again */
  if (!agent_image_wanted(s->core, image))
    return;
  image->pulled = image->fallback = false;
  ask(s, image, image->policy == MODEL__PULL_POLICY__PULL_ALWAYS ? AGENT_ACT_IMAGE_PULL : AGENT_ACT_IMAGE_LOOK);
}

void agent_image_lost(struct agent_image *image) {
  if (image->state == AGENT_IMAGE_READY)
    image->state = AGENT_IMAGE_NEW;
}

void agent_image_docker_down(struct agent_image *image) {
  if (image->state == AGENT_IMAGE_LOOKING || image->state == AGENT_IMAGE_PULLING)
    image->state = AGENT_IMAGE_NEW;
  image->op_id = 0;
}

static void failed(struct agent_step *s, struct agent_image *image, const char *why) {
  image->state = AGENT_IMAGE_FAILED;
  image->next_try = s->now.mono_ns + agent_backoff_failure(&image->failure, FIRST_RETRY);
  if (why != image->error)
    agent_copy(image->error, sizeof image->error, why);
}

static void ready(struct agent_step *s, struct agent_image *image, const struct agent_event *ev) {
  image->state = AGENT_IMAGE_READY;
  image->failure.failures = 0;
  if (image->given) {
    agent_copy(image->run, sizeof image->run, image->ref);
    return;
  }
  agent_copy(image->run, sizeof image->run, ev->image_digest ? ev->image_digest : ev->image_id);
  struct agent_action *act = agent_act(s, AGENT_ACT_RESOLVED);
  if (!act)
    return;
  agent_copy(act->project, sizeof act->project, image->project);
  agent_copy(act->service, sizeof act->service, image->service);
  act->number = image->revision;
  agent_copy(act->name, sizeof act->name, image->run);
}

static void looked(struct agent_step *s, struct agent_image *image, const struct agent_event *ev) {
  if (ev->code == ERR_NONE) {
    /* A fallback is for what was built here: what once came from a registry must come from there again. */
    if (image->fallback && ev->image_digest)
      failed(s, image, image->error);
    else
      ready(s, image, ev);
  } else if (ev->code != ERR_NOT_FOUND) {
    failed(s, image, ev->text);
  } else if (image->fallback) {
    failed(s, image, image->error);
  } else if (image->pulled) {
    failed(s, image, "the image is not there after its pull");
  } else if (image_ref_is_id(image->ref)) {
    failed(s, image, "the image is a local one of another node, or was removed: it can't be pulled");
  } else if (image->policy == MODEL__PULL_POLICY__PULL_NEVER) {
    failed(s, image, "the image is not on this node, and pull = \"never\"");
  } else {
    ask(s, image, AGENT_ACT_IMAGE_PULL);
  }
}

static void pulled(struct agent_step *s, struct agent_image *image, const struct agent_event *ev) {
  if (ev->code == ERR_NONE) {
    image->pulled = true;
    ask(s, image, AGENT_ACT_IMAGE_LOOK);
  } else if (image->implicit && !image->given) {
    agent_copy(image->error, sizeof image->error, ev->text);
    image->fallback = true;
    ask(s, image, AGENT_ACT_IMAGE_LOOK);
  } else {
    failed(s, image, ev->text);
  }
}

void agent_image_event(struct agent_step *s, const struct agent_event *ev) {
  struct agent_core *core = s->core;
  struct agent_image *image = NULL;
  for (size_t n = 0; n < core->image_count && !image; n++)
    if (ev->op && core->images[n]->op_id == ev->op)
      image = core->images[n];
  if (!image)
    return;
  if (ev->kind == AGENT_EV_IMAGE_PROGRESS) {
    agent_copy(image->progress, sizeof image->progress, ev->text);
    return;
  }
  image->op_id = 0;
  if (ev->code == ERR_UNAVAILABLE || ev->code == ERR_CANCELLED)
    failed(s, image, ev->text);
  else if (ev->kind == AGENT_EV_IMAGE_LOOKED)
    looked(s, image, ev);
  else
    pulled(s, image, ev);
}
