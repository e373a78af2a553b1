/* Connections whose next request does not get to the end of its head: libmicrohttpd ends those that are quiet, and one that sends a byte now and then
 * is never quiet. Threads: the loop's. */
#ifndef ORCA_APISERVER_HEADS_H
#define ORCA_APISERVER_HEADS_H

#include <stdbool.h>

#include "common/loop.h"

#define API_HEAD_LIMIT (60 * NS_PER_SEC) /* from the connection's begin, or its last answer */

struct api_head { /* of one connection */
  int fd;
  int64_t since; /* 0: a request is under way */
  struct api_head *next, *prev;
};

struct api_heads {
  struct loop *loop;
  struct loop_timer timer;
  struct api_head *list;
};
void api_heads_init(struct api_heads *heads, struct loop *loop);
void api_heads_fini(struct api_heads *heads); /* those that are left are freed by api_head_gone */

struct api_head *api_head_new(struct api_heads *heads, int fd); /* NULL: no memory, it is not watched */
void api_head_waits(struct api_heads *heads, struct api_head *head, bool waits);
void api_head_gone(struct api_heads *heads, struct api_head *head);

#endif
