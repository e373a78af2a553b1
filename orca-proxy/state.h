/* STATE_DIR/proxy: the last route table, and a lock so that two proxies never share it.
 *   routes   see routes.h; replaced whole, by rename
 *   api.pem  see certificate.h
 *   lock     held (flock) while the proxy runs; its text is the holder's pid
 * Threads: one. */
#ifndef ORCA_PROXY_STATE_H
#define ORCA_PROXY_STATE_H

#include <sys/types.h>

#include "common/buf.h"
#include "common/err.h"

struct state;
/* Makes the folder. ERR_CONFLICT says who holds it. */
struct state *state_open(const char *state_dir, struct err *err);
void state_close(struct state *s);
/* No longer holds the folder, and writes no more: another proxy takes it, while this one only ends. */
void state_release(struct state *s);
int state_write(struct state *s, const char *name, const struct buf *data, mode_t mode, struct err *err); /* synced and renamed */
int state_read(struct state *s, const char *name, struct buf *data, struct err *err);                     /* ERR_NOT_FOUND when there is none */

#endif
