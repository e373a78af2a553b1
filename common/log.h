/* Logging: one event a line, key=value, to stderr (journald adds time and host; outside of systemd a time is put first).
 *
 *   log_info("started", "instance", id, "ms", log_u64(ms));   →   level=info instance=shop/api.3 msg="started" ms=212
 *
 * Fields are pairs of strings, NULL-terminated by the macro; values are quoted when they need it, control
 * characters escaped. Only daemons' shells log: libraries return errors. Never pass a secret.
 * Threads: any; one line is one write(2). */
#ifndef ORCA_COMMON_LOG_H
#define ORCA_COMMON_LOG_H

#include <stdint.h>

enum log_level { LOG_LEVEL_TRACE, LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };

/* Fields that stand on every line, e.g. log_init("agent", "n2"). The strings are borrowed for the process's life. */
void log_init(const char *daemon, const char *node);
/* Given by hand (-v): it stays, whatever the cluster says. */
void log_pin_level(enum log_level level);
/* cluster.toml's [cluster] log_level, each time it is heard; "" is its default, info. A word of a newer version changes nothing. */
void log_follow_level(const char *text);
int log_level_from_text(const char *text, enum log_level *ret); /* -1 when unknown */
int log_enabled(enum log_level level);

/* Keys and values alternate; the last argument is NULL. A NULL value leaves its pair out. */
void log_event(enum log_level level, const char *msg, ...) __attribute__((sentinel));

#define log_trace(...) log_at(LOG_LEVEL_TRACE, __VA_ARGS__)
#define log_debug(...) log_at(LOG_LEVEL_DEBUG, __VA_ARGS__)
#define log_info(...) log_at(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_warn(...) log_at(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_error(...) log_at(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_at(level, ...)                                                                                                                           \
  do {                                                                                                                                               \
    if (log_enabled(level))                                                                                                                          \
      log_event((level), __VA_ARGS__, NULL);                                                                                                         \
  } while (0)

/* Numbers as text, in one of 16 buffers of this thread that take turns: good within one log call. */
const char *log_u64(uint64_t v);
const char *log_i64(int64_t v);

#endif
