/* STATE_DIR/proxy: the last route table, and a lock so that two proxies never share it.
 *   routes   see routes.h; replaced whole, by rename
 *   lock     held (flock) while the proxy runs; its text is the holder's pid
 * Threads: one. */
#ifndef ORCA_PROXY_STATE_H
#define ORCA_PROXY_STATE_H

#include "common/buf.h"
#include "common/err.h"

struct state;
/* Makes the folder. ERR_CONFLICT says who holds it. */
struct state *state_open(const char *state_dir, struct err *err);
void state_close(struct state *s);
int state_write(struct state *s, const struct buf *routes, struct err *err); /* synced and renamed */
int state_read(struct state *s, struct buf *routes, struct err *err);        /* ERR_NOT_FOUND when there is none */

#endif
