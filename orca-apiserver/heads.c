#include "orca-apiserver/heads.h"

#include <stdlib.h>
#include <sys/socket.h>

#include "common/log.h"

#define LOOK_EVERY (10 * NS_PER_SEC)

static void look_again(struct api_heads *heads) {
  struct err err;
  if (!loop_timer_is_set(&heads->timer) && loop_timer_in(heads->loop, &heads->timer, LOOK_EVERY, &err) < 0)
    log_warn("no timer for slow clients", "error", err.msg);
}

static void look(void *arg) {
  struct api_heads *heads = arg;
  for (struct api_head *head = heads->list; head; head = head->next)
    if (head->since && loop_now(heads->loop) - head->since > API_HEAD_LIMIT)
      shutdown(head->fd, SHUT_RDWR); /* libmicrohttpd reads its end, and closes it */
  if (heads->list)
    look_again(heads);
}

void api_heads_init(struct api_heads *heads, struct loop *loop) {
  *heads = (struct api_heads){.loop = loop, .timer = {.cb = look, .arg = heads}};
}

void api_heads_fini(struct api_heads *heads) {
  loop_timer_cancel(heads->loop, &heads->timer);
}

struct api_head *api_head_new(struct api_heads *heads, int fd) {
  struct api_head *head = calloc(1, sizeof *head);
  if (!head)
    return NULL;
  *head = (struct api_head){.fd = fd, .since = loop_now(heads->loop), .next = heads->list};
  if (head->next)
    head->next->prev = head;
  heads->list = head;
  look_again(heads);
  return head;
}

void api_head_waits(struct api_heads *heads, struct api_head *head, bool waits) {
  if (head)
    head->since = waits ? loop_now(heads->loop) : 0;
}

void api_head_gone(struct api_heads *heads, struct api_head *head) {
  if (!head)
    return;
  if (head->prev)
    head->prev->next = head->next;
  else
    heads->list = head->next;
  if (head->next)
    head->next->prev = head->prev;
  free(head);
}
