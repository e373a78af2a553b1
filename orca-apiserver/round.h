/* One round of what nodes report, on its way into the store: every key written at most once, the last word wins.
 *
 * Reports are judged against the cache: an instance's status counts only when it is of the node and epoch that the scheduler gave it. What changes
 * nothing is not written. What nodes say is held within bounds: texts are cut and made printable, records that are too large are refused.
 * It goes in transactions of a size that the store takes: api_round_take() gives the next one's part, which is judged by as if it were stored until
 * api_round_landed() (it is in the cache now) or api_round_lost() (it is not, and all that was judged by it goes with it: its reporters tell it
 * again). Threads: one owner; no I/O. */
#ifndef ORCA_APISERVER_ROUND_H
#define ORCA_APISERVER_ROUND_H

#include <stdbool.h>
#include <stdint.h>

#include "common/storec/storec.h"
#include "orca-apiserver/cache.h"
#include "proto/node.pb-c.h"

#define API_ROUND_EVENTS 64 /* of one report; more are dropped and counted */

struct api_round {
  const struct api_cache *cache; /* borrowed */
  struct api_smap writes;        /* key → message to put, or NULL to delete */
  struct api_smap flying;        /* the same, taken and not landed yet */
  Model__Event **events;
  size_t event_count, event_size;
  uint64_t refused; /* instances, events … that were not the node's to report */
};

void api_round_init(struct api_round *r, const struct api_cache *cache);
void api_round_fini(struct api_round *r);
bool api_round_is_empty(const struct api_round *r);
bool api_round_is_full(const struct api_round *r); /* takes no more reports until some of it has been sent */

/* Only when nothing flies. The caller stores r->flying and the events, which it frees with model__event__free_unpacked(); at most API_TAKE_EVENTS.
 * -1: out of memory, nothing was taken. */
#define API_TAKE_EVENTS 60u /* as many as each transaction may trim away */
int api_round_take(struct api_round *r, Model__Event *events[API_TAKE_EVENTS], size_t *ret_count);
void api_round_landed(struct api_round *r);
void api_round_lost(struct api_round *r);

/* -1: out of memory: nothing of it may be acknowledged. */
int api_round_report(struct api_round *r, const char *node, const Node__StatusReport *report, int64_t now_ms);
int api_round_node_state(struct api_round *r, const char *node, Model__NodeState state, const char *reason, int64_t now_ms);
int api_round_drained(struct api_round *r, const Model__Instance *instance);
int api_round_event(struct api_round *r, const Model__Event *event); /* copied */

#endif
