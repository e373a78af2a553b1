/* The proxy's own answers: they say what went wrong, and who says it ("orca-proxy on n1"). HTML for browsers, JSON when Accept asks
 * for it, else one line of text.
 * Threads: pure functions. */
#ifndef ORCA_PROXY_PAGE_H
#define ORCA_PROXY_PAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "orca-proxy/head.h"

#define PAGE_MAX ((size_t)4096)

/* A whole answer, head and body (no body for to_head). detail: ours, or printable text from a peer; it is escaped.
 * accept: the request's Accept, or NULL span. Returns its length. */
size_t page_write(uint8_t out[PAGE_MAX], unsigned status, const char *detail, const char *node, struct span accept, bool to_head, bool keep_alive);
const char *page_reason(unsigned status);

#endif
