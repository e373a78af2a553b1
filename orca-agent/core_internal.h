/* What the core's files share among themselves. Not for others. */
#ifndef ORCA_AGENT_CORE_INTERNAL_H
#define ORCA_AGENT_CORE_INTERNAL_H

#include "common/loop.h"
#include "orca-agent/core.h"

#define AGENT_LOST_RETRY NS_PER_SEC /* when nobody knows whether something was done */

struct agent_step {
  struct agent_core *core;
  struct agent_now now;
  struct agent_actions *out;
};

/* A zeroed action at the end of the list; NULL when memory ends (noted in the list). */
struct agent_action *agent_act(struct agent_step *s, enum agent_action_kind kind);
void agent_history(struct agent_step *s, const struct agent_instance *i, const char *kind, const char *severity, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
void agent_copy(char *to, size_t size, const char *from); /* truncates */

/* core_instance.c */
struct agent_instance *agent_instance_add(struct agent_step *s, const char *project, const char *service, uint64_t number);
void agent_instance_free(struct agent_instance *i);
bool agent_instance_forgettable(const struct agent_instance *i);
void agent_instance_reconcile(struct agent_step *s, struct agent_instance *i);
void agent_instance_op_end(struct agent_step *s, struct agent_instance *i); /* nothing is in flight any more */
void agent_slots_run(struct agent_step *s);
bool agent_instance_is_job(const struct agent_instance *i);
bool agent_instance_is_of_assigned(const struct agent_instance *i); /* its container; something must be assigned */
bool agent_instance_mismatch(const struct agent_instance *i);

/* core_assigned.c */
void agent_instance_assign(struct agent_step *s, struct agent_instance *i, const Node__Assignment *assigned);
void agent_instance_unassign(struct agent_instance *i);

/* core_facts.c */
void agent_instance_docker_down(struct agent_step *s, struct agent_instance *i);
void agent_instance_listed(struct agent_step *s, struct agent_instance *i, const struct agent_container *found); /* NULL: not in the list */
void agent_instance_done(struct agent_step *s, struct agent_instance *i, const struct agent_event *ev);
void agent_instance_container_event(struct agent_step *s, struct agent_instance *i, const struct agent_event *ev);
void agent_instance_words(struct agent_step *s, struct agent_instance *i, const struct agent_event *ev);
void agent_instance_verdict(struct agent_step *s, struct agent_instance *i, const struct agent_event *ev);

/* core_phase.c */
void agent_instance_refresh_ready(struct agent_step *s, struct agent_instance *i);
void agent_instance_set_phase(struct agent_step *s, struct agent_instance *i, Model__Phase phase, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void agent_instance_set_running(struct agent_step *s, struct agent_instance *i);
void agent_instance_fail(struct agent_step *s, struct agent_instance *i, const char *what, const char *why);

/* core_image.c: true when *ret_run may be used; else *why says what it waits for. */
struct agent_image *agent_image_for(struct agent_step *s, const struct agent_instance *i);
void agent_image_reconcile(struct agent_step *s, struct agent_image *image);
void agent_image_lost(struct agent_image *image);
void agent_image_event(struct agent_step *s, const struct agent_event *ev);
void agent_image_docker_down(struct agent_image *image);
bool agent_image_is_of(const struct agent_image *image, const struct agent_instance *i);
bool agent_image_wanted(const struct agent_core *core, const struct agent_image *image);

/* core_network.c */
struct agent_network *agent_network_for(struct agent_step *s, const char *name, const char *project);
void agent_network_reconcile(struct agent_step *s, struct agent_network *network);
void agent_networks_listed(struct agent_step *s, const struct agent_event *ev);
void agent_network_event(struct agent_step *s, const struct agent_event *ev);
void agent_networks_tidy(struct agent_step *s);

#endif
