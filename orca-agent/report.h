/* What the masters have not acknowledged yet: kept, and sent again, until they have.
 *
 * Pure: built from the core's state; the shell packs and sends. One report is under way at a time. */
#ifndef ORCA_AGENT_REPORT_H
#define ORCA_AGENT_REPORT_H

#include "orca-agent/core.h"

#define REPORT_MAX_EVENTS 1000u        /* the oldest go when no master takes them */
#define REPORT_EVENTS 64u              /* in one report: a master takes no more of one */
#define REPORT_LINES ((size_t)2 << 20) /* bytes of last lines in one report, which must fit into one message: from there on they are left out */

struct report {
  uint64_t acked_seq, sent_seq; /* of instances' status_seq */
  bool full;                    /* the next one is */
  bool node_dirty;
  char **gone;
  size_t gone_count, gone_size, gone_sent;
  Node__ImageResolved **images;
  size_t image_count, image_size, image_sent;
  Model__Event **events;
  size_t event_count, event_size, event_sent, event_dropped;
};

void report_fini(struct report *r);
void report_gone(struct report *r, const char *instance);
void report_image(struct report *r, const struct agent_action *act);
void report_event(struct report *r, const struct agent_action *act, const char *node, int64_t wall_ms);
bool report_pending(const struct report *r, const struct agent_core *core);
/* A new conversation: everything again. */
void report_restart(struct report *r);
/* What is to be said now; the caller frees. node: what the node says of itself, sent when dirty; copied. NULL when memory ends. */
Node__StatusReport *report_build(struct report *r, const struct agent_core *core, const Model__NodeStatus *node);
void report_acked(struct report *r);
void report_failed(struct report *r);
/* One instance as it is reported; the caller frees. */
Model__InstanceStatus *report_instance(const struct agent_core *core, const struct agent_instance *i);

#endif
