/* Logs for the masters: each ReadLogs is a stream of chunks, read from Docker no faster than the caller takes it (credit).
 *
 * A log is read in readings of one moment (docker_logs.h), each from the place where the last one ended, found again by its mark; a container that
 * goes on writing is read again and again, one that is silent wakes its reader. So restarts of the container, rotation, a lost
 * Docker and a reader that pauses all look alike, and nothing comes twice or not at all but what was rotated away unread (said as LogChunk.lost).
 * Threads: the loop's. */
#ifndef ORCA_AGENT_LOG_STREAM_H
#define ORCA_AGENT_LOG_STREAM_H

#include "orca-agent/agent.h"

#define LOG_STREAMS_MAX 64u

struct log_streams;

struct log_streams *log_streams_open(struct agent *a, struct err *err);
void log_streams_close(struct log_streams *all);
/* Answers the call, now or later. */
void log_streams_read(struct log_streams *all, struct bus_call *call, const Node__ReadLogs *what);
/* Instances have changed. */
void log_streams_changed(struct log_streams *all);
/* A container is about to be removed: true when somebody still reads what it said last; the action is then carried out by agent_docker_do(), soon. */
bool log_streams_hold(struct log_streams *all, const struct agent_action *removal);

#endif
