/* Time zones: how far a place's clocks are from UTC, from the TZif files of tzdata (RFC 8536) with the rule at their end for the years after
 * them. For cron_next(), whose offset function zone_offset() is.
 *
 * Threads: a loaded zone is constant; loading reads one file. Times are Unix seconds. */
#ifndef ORCA_COMMON_CRON_ZONE_H
#define ORCA_COMMON_CRON_ZONE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

#define ZONE_DIR "/usr/share/zoneinfo"
#define ZONE_FILE_MAX (256u << 10)

struct zone;

/* "Europe/Berlin": parts of letters, digits, _ + and -, none of them . or .. */
bool zone_name_valid(const char *name);
/* Whether there is one of that name. Where there is no tzdata at all, every valid name is taken for one. */
bool zone_exists(const char *name);
/* ERR_NOT_FOUND when there is none of that name, ERR_INVALID when its file is not one. UTC needs no file. */
struct zone *zone_load(const char *name, struct err *err);
/* The same from a file's bytes (for tests and fuzzing). */
struct zone *zone_parse(const uint8_t *data, size_t len, struct err *err);
void zone_free(struct zone *zone); /* takes NULL */

/* Seconds east of UTC at this time: a cron_offset_fn, whose arg is a struct zone *; NULL is UTC. */
int32_t zone_offset(void *zone, int64_t at);

#endif
