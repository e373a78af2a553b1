/* Listening sockets from a proxy that ends to the one that comes after it, where no systemd keeps them: RUN_DIR/proxy-handover.sock, there only
 * while one has sockets to give. Each side asks the kernel who the other is: the same user, or root.
 * Threads: one. Both sides block for a bounded time. */
#ifndef ORCA_PROXY_HANDOVER_H
#define ORCA_PROXY_HANDOVER_H

#include "common/err.h"
#include "orca-proxy/listen.h"

/* The one that ends: a socket to be asked on, made before the other one can be started. -1. */
int handover_open(const char *run_dir, struct err *err);
/* Gives the sockets to the first that asks within wait_ms, and takes away the file. Closes fd. Returns whether somebody came. */
bool handover_give(const char *run_dir, int fd, const struct listen_sockets *sockets, int wait_ms);

/* The one that comes: adopts what there is; nothing, when nobody is there. */
void handover_ask(const char *run_dir, struct listen_sockets *sockets);

#endif
