/* GET /services/{name}/logs: what the instances of a service, or the runs of a job, have written and write, in the order of time.
 *
 * Each instance's log is a stream from its node's agent. A client that reads slowly holds them back (bus_call_hold): at most a few chunks of each
 * wait here. Instances that come while it is followed join, those that are gone leave; an agent that is lost is said, and gone on with where it was
 * left. A client that is cut off goes on in the same way: each event's id is its instance's place. Threads: the loop's. */
#ifndef ORCA_APISERVER_LOG_RELAY_H
#define ORCA_APISERVER_LOG_RELAY_H

#include "common/logs/mark.h"
#include "orca-apiserver/api.h"

/* Where a client was cut off: "3:MARK", or "@NS,3:MARK,5:MARK": the stream began at NS, and these were the last lines of these instances. */
struct log_resume_place {
  uint64_t number;
  struct log_mark mark;
};
struct log_resume {
  int64_t began_ns; /* 0: not said */
  struct log_resume_place *places;
  size_t count;
};
int log_resume_parse(const char *text, struct log_resume *ret, struct err *err); /* the caller frees places */

/* One line, or a piece of one, as the data of an event: JSON of whatever bytes it has. */
void log_line_json(struct buf *out, const char *instance, int64_t ns, bool err, const uint8_t *text, size_t len, bool partial);

#endif
