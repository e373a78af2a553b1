/* TLS 1.3 on accepted connections, by OpenSSL: a certificate with its key (tls_server), and the connections made under it (tls_stream).
 *
 * No earlier version, no early data, no renegotiation (1.3 has none), no client certificates. Session tickets are on; their keys belong to the
 * tls_server. The process ignores SIGPIPE. Which certificate a connection gets will be asked by name where there are several: tls_server_new() is the
 * place for that. Ownership: a stream holds its server; the descriptor stays the caller's. Threads: a tls_server may be shared (tls_server_ref); a
 * stream is its thread's. */
#ifndef ORCA_COMMON_TLS_SERVER_H
#define ORCA_COMMON_TLS_SERVER_H

#include <stddef.h>
#include <sys/types.h>

#include "common/err.h"

struct tls_server;
struct tls_stream;

/* chain: the certificate first, as PEM; key: its own, as PEM. Copied. ERR_INVALID when they do not belong together. */
struct tls_server *tls_server_new(const char *chain_pem, size_t chain_len, const char *key_pem, size_t key_len, struct err *err);
struct tls_server *tls_server_ref(struct tls_server *s);
void tls_server_free(struct tls_server *s); /* takes NULL; the last one ends it */

/* fd: connected, non-blocking. NULL when memory ends. */
struct tls_stream *tls_stream_new(struct tls_server *s, int fd);
void tls_stream_free(struct tls_stream *t); /* takes NULL; does not close fd */

/* 1 done, 0 more must come (or go) first, -1 refused: *why says what the peer did, for the log; a static text. */
int tls_handshake(struct tls_stream *t, const char **why);

/* As recv(2) and send(2): bytes, 0 for the peer's close_notify, -1 with errno: EAGAIN, or EIO when the connection is no more good. What tls_write()
 * did not take must be offered again, at the same place in the stream and not less of it. */
ssize_t tls_read(struct tls_stream *t, void *data, size_t len);
ssize_t tls_write(struct tls_stream *t, const void *data, size_t len);
/* Says that nothing more comes (close_notify), as far as there is room for it. */
void tls_end(struct tls_stream *t);

#endif
