/* What a container wrote last before it ended: its last ten lines, at most 4 KiB, made valid UTF-8 without NUL.
 *
 * Read beside the restart, not before it: lines of the next run are told by their time, which is later than the end by more than a start takes.
 * Threads: the loop's; last_lines_*() are pure. */
#ifndef ORCA_AGENT_LAST_WORDS_H
#define ORCA_AGENT_LAST_WORDS_H

#include "orca-agent/agent.h"

#define LAST_LINES 10u
#define LAST_BYTES ((size_t)4096)

struct last_lines {
  char text[2 * LAST_BYTES];
  size_t len;
};
void last_lines_add(struct last_lines *l, const uint8_t *text, size_t len, bool partial);
/* Cuts to what is told; text is not terminated. */
void last_lines_end(struct last_lines *l);

struct last_words;

struct last_words *last_words_open(struct agent *a, struct err *err);
void last_words_close(struct last_words *w);
/* AGENT_ACT_WORDS; answered by AGENT_EV_WORDS, within two seconds; when many have ended at once, within twelve. */
void last_words_read(struct last_words *w, const struct agent_action *act);

#endif
