#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "orca-store/storectl/storectl.h"

static void print_kv_json(const Store__KeyValue *kv, bool keys_only) {
  printf("{\"key\":");
  sctl_print_json_bytes(stdout, &kv->key);
  if (!keys_only) {
    printf(",\"value\":");
    sctl_print_json_bytes(stdout, &kv->value);
  }
  printf(",\"create_revision\":%" PRIu64 ",\"mod_revision\":%" PRIu64 ",\"version\":%" PRIu64 ",\"lease\":%" PRIu64 "}",
         PB_GET(kv, create_revision, 0), PB_GET(kv, mod_revision, 0), PB_GET(kv, version, 0), PB_GET(kv, lease, 0));
}

static void print_range(struct sctl *ctl, const Store__RangeReply *r) {
  if (ctl->json) {
    printf("{\"revision\":%" PRIu64 ",\"count\":%" PRIu64 ",\"more\":%s,\"kvs\":[", PB_GET(r, revision, 0), PB_GET(r, count, 0),
           PB_GET(r, more, 0) ? "true" : "false");
    for (size_t i = 0; i < r->n_kvs; i++) {
      if (i)
        putchar(',');
      print_kv_json(r->kvs[i], ctl->keys_only);
    }
    printf("]}");
    return;
  }
  for (size_t i = 0; i < r->n_kvs; i++) {
    sctl_print_bytes(stdout, &r->kvs[i]->key);
    putchar('\n');
    if (!ctl->keys_only) {
      sctl_print_bytes(stdout, &r->kvs[i]->value);
      putchar('\n');
    }
  }
}

static int show_range(struct sctl *ctl, const Store__Reply *reply) {
  print_range(ctl, reply->range);
  if (ctl->json)
    putchar('\n');
  else if (PB_GET(reply->range, more, 0))
    fprintf(stderr, "orca-storectl: %zu of %" PRIu64 " keys; go on behind the last one\n", reply->range->n_kvs, PB_GET(reply->range, count, 0));
  return 0;
}

int sctl_range(struct sctl *ctl) {
  if (ctl->argc != 1)
    return sctl_usage("range: one KEY");
  Store__Call call = STORE__CALL__INIT;
  Store__RangeRequest r = STORE__RANGE_REQUEST__INIT;
  int rc = 1;
  if (sctl_key_range(ctl, ctl->argv[0], &r.key, &r.range_end) == 0) {
    r.has_key = 1;
    r.has_range_end = r.range_end.len > 0;
    if (ctl->limit)
      PB_SET(&r, limit, ctl->limit);
    if (ctl->revision)
      PB_SET(&r, revision, ctl->revision);
    PB_SET(&r, keys_only, ctl->keys_only);
    PB_SET(&r, serializable, ctl->serializable);
    call.body_case = STORE__CALL__BODY_RANGE;
    call.range = &r;
    rc = sctl_call(ctl, &call, show_range);
  }
  free(r.key.data);
  free(r.range_end.data);
  return rc;
}

static int show_txn(struct sctl *ctl, const Store__Reply *reply) {
  const Store__TxnReply *t = reply->txn;
  bool ok = PB_GET(t, succeeded, 0);
  if (ctl->json) {
    printf("{\"succeeded\":%s,\"revision\":%" PRIu64 ",\"replies\":[", ok ? "true" : "false", PB_GET(t, revision, 0));
    for (size_t i = 0; i < t->n_replies; i++) {
      if (i)
        putchar(',');
      if (t->replies[i]->reply_case == STORE__OP_REPLY__REPLY_RANGE)
        print_range(ctl, t->replies[i]->range);
      else if (t->replies[i]->reply_case == STORE__OP_REPLY__REPLY_DELETED)
        printf("{\"deleted\":%" PRIu64 "}", t->replies[i]->deleted);
      else
        printf("{\"put\":true}");
    }
    printf("]}\n");
    return ok ? 0 : 1;
  }
  printf("%s\n", ok ? "SUCCESS" : "FAILURE");
  for (size_t i = 0; i < t->n_replies; i++) {
    putchar('\n');
    if (t->replies[i]->reply_case == STORE__OP_REPLY__REPLY_RANGE)
      print_range(ctl, t->replies[i]->range);
    else if (t->replies[i]->reply_case == STORE__OP_REPLY__REPLY_DELETED)
      printf("%" PRIu64 "\n", t->replies[i]->deleted);
    else
      printf("OK\n");
  }
  return ok ? 0 : 1;
}

static int show_put(struct sctl *ctl, const Store__Reply *reply) {
  if (ctl->json)
    printf("{\"revision\":%" PRIu64 "}\n", PB_GET(reply->txn, revision, 0));
  else
    printf("OK\n");
  return 0;
}

static int show_del(struct sctl *ctl, const Store__Reply *reply) {
  uint64_t n = reply->txn->n_replies ? reply->txn->replies[0]->deleted : 0;
  if (ctl->json)
    printf("{\"revision\":%" PRIu64 ",\"deleted\":%" PRIu64 "}\n", PB_GET(reply->txn, revision, 0), n);
  else
    printf("%" PRIu64 "\n", n);
  return 0;
}

static int one_op(struct sctl *ctl, Store__Op *op, sctl_show_fn *show) {
  Store__Call call = STORE__CALL__INIT;
  Store__TxnRequest txn = STORE__TXN_REQUEST__INIT;
  txn.n_success = 1;
  txn.success = &op;
  call.body_case = STORE__CALL__BODY_TXN;
  call.txn = &txn;
  return sctl_call(ctl, &call, show);
}

int sctl_put(struct sctl *ctl) {
  if (ctl->argc != 2)
    return sctl_usage("put: KEY VALUE");
  struct buf value = BUF_INIT((size_t)8 << 20);
  bool from_stdin = strcmp(ctl->argv[1], "-") == 0;
  if (from_stdin ? sctl_read_stdin(&value) < 0 : buf_add_str(&value, ctl->argv[1]) < 0) {
    buf_free(&value);
    return sctl_usage("put: the value cannot be read or is over 8 MiB");
  }
  Store__Op op = STORE__OP__INIT;
  Store__Put put = STORE__PUT__INIT;
  put.has_key = put.has_value = 1;
  put.key = (ProtobufCBinaryData){strlen(ctl->argv[0]), (uint8_t *)ctl->argv[0]};
  put.value = (ProtobufCBinaryData){value.len, value.data};
  if (ctl->lease)
    PB_SET(&put, lease, ctl->lease);
  op.op_case = STORE__OP__OP_PUT;
  op.put = &put;
  int rc = one_op(ctl, &op, show_put);
  buf_free(&value);
  return rc;
}

int sctl_del(struct sctl *ctl) {
  if (ctl->argc != 1)
    return sctl_usage("del: one KEY");
  Store__Op op = STORE__OP__INIT;
  Store__DeleteRange d = STORE__DELETE_RANGE__INIT;
  int rc = 1;
  if (sctl_key_range(ctl, ctl->argv[0], &d.key, &d.range_end) == 0) {
    d.has_key = 1;
    d.has_range_end = d.range_end.len > 0;
    op.op_case = STORE__OP__OP_DELETE_RANGE;
    op.delete_range = &d;
    rc = one_op(ctl, &op, show_del);
  }
  free(d.key.data);
  free(d.range_end.data);
  return rc;
}

/* ---------------------------------------------------------------- txn: text on stdin
 *
 *   mod("/a") = "0"           compares: mod, create, ver, val, lease; = != < >
 *                             an empty line
 *   put /a "one"              then: put, get, del; words may be quoted
 *                             an empty line
 *   get /a                    else
 */

struct text {
  char *at;
  unsigned line;
};

/* The next word, unquoted in place. NULL: the line has ended. */
static char *word(char **at) {
  char *p = *at;
  while (*p == ' ' || *p == '\t')
    p++;
  if (!*p)
    return NULL;
  char *start, *out;
  if (*p == '"') {
    start = out = ++p;
    while (*p && *p != '"') {
      if (*p == '\\' && p[1])
        p++;
      *out++ = *p++;
    }
    if (*p)
      p++;
  } else {
    start = out = p;
    while (*p && *p != ' ' && *p != '\t')
      *out++ = *p++;
    if (*p)
      p++;
  }
  *at = p;
  *out = 0;
  return start;
}

static bool fill(ProtobufCBinaryData *to, const char *text) {
  to->len = strlen(text);
  to->data = (uint8_t *)strdup(text);
  return to->data != NULL;
}

/* mod("/a") = "0" */
static Store__Compare *read_compare(char *line) {
  char *open = strchr(line, '(');
  if (!open)
    return NULL;
  *open = 0;
  char *name = word(&line), *rest = open + 1;
  char *close = *rest == '"' ? strchr(rest + 1, '"') : NULL;
  if (!name || !close || close[1] != ')')
    return NULL;
  *close = 0;
  char *key = rest + 1, *at = close + 2;
  char *how = word(&at), *value = word(&at);
  uint64_t number = 0;
  bool is_value = strcmp(name, "val") == 0 || strcmp(name, "value") == 0;
  if (!how || !value || word(&at) || (!is_value && sctl_number(value, strcmp(name, "lease") == 0 ? 16 : 10, &number) < 0))
    return NULL;
  Store__Compare *c = malloc(sizeof *c);
  if (!c)
    return NULL;
  store__compare__init(c);
  c->has_key = 1;
  bool ok = fill(&c->key, key);
  if (strcmp(how, "=") == 0)
    PB_SET(c, result, STORE__COMPARE_RESULT__EQUAL);
  else if (strcmp(how, "!=") == 0)
    PB_SET(c, result, STORE__COMPARE_RESULT__NOT_EQUAL);
  else if (strcmp(how, "<") == 0)
    PB_SET(c, result, STORE__COMPARE_RESULT__LESS);
  else if (strcmp(how, ">") == 0)
    PB_SET(c, result, STORE__COMPARE_RESULT__GREATER);
  else
    ok = false;
  if (is_value) {
    c->target_case = STORE__COMPARE__TARGET_VALUE;
    ok = fill(&c->value, value) && ok;
  } else if (strcmp(name, "mod") == 0) {
    c->target_case = STORE__COMPARE__TARGET_MOD_REVISION;
    c->mod_revision = number;
  } else if (strcmp(name, "create") == 0) {
    c->target_case = STORE__COMPARE__TARGET_CREATE_REVISION;
    c->create_revision = number;
  } else if (strcmp(name, "ver") == 0 || strcmp(name, "version") == 0) {
    c->target_case = STORE__COMPARE__TARGET_VERSION;
    c->version = number;
  } else if (strcmp(name, "lease") == 0) {
    c->target_case = STORE__COMPARE__TARGET_LEASE;
    c->lease = number;
  } else {
    ok = false;
  }
  if (!ok) {
    store__compare__free_unpacked(c, NULL);
    return NULL;
  }
  return c;
}

static Store__Op *read_op(char *line) {
  char *verb = word(&line), *key = verb ? word(&line) : NULL, *more = key ? word(&line) : NULL;
  Store__Op *op = key ? malloc(sizeof *op) : NULL;
  if (!op)
    return NULL;
  store__op__init(op);
  bool ok = false;
  if (strcmp(verb, "put") == 0 && more) {
    Store__Put *p = malloc(sizeof *p);
    if (p) {
      store__put__init(p);
      op->op_case = STORE__OP__OP_PUT;
      op->put = p;
      p->has_key = p->has_value = 1;
      ok = fill(&p->key, key) && fill(&p->value, more) && !word(&line);
    }
  } else if (strcmp(verb, "get") == 0 && (!more || strcmp(more, "--prefix") == 0)) {
    Store__RangeRequest *r = malloc(sizeof *r);
    struct sctl how = {.prefix = more != NULL};
    if (r) {
      store__range_request__init(r);
      op->op_case = STORE__OP__OP_RANGE;
      op->range = r;
      r->has_key = 1;
      r->has_range_end = more != NULL;
      ok = sctl_key_range(&how, key, &r->key, &r->range_end) == 0;
      if (!r->has_range_end) {
        free(r->range_end.data);
        r->range_end.data = NULL;
      }
    }
  } else if (strcmp(verb, "del") == 0 && (!more || strcmp(more, "--prefix") == 0)) {
    Store__DeleteRange *d = malloc(sizeof *d);
    struct sctl how = {.prefix = more != NULL};
    if (d) {
      store__delete_range__init(d);
      op->op_case = STORE__OP__OP_DELETE_RANGE;
      op->delete_range = d;
      d->has_key = 1;
      d->has_range_end = more != NULL;
      ok = sctl_key_range(&how, key, &d->key, &d->range_end) == 0;
      if (!d->has_range_end) {
        free(d->range_end.data);
        d->range_end.data = NULL;
      }
    }
  }
  if (!ok) {
    store__op__free_unpacked(op, NULL);
    return NULL;
  }
  return op;
}

static void *append(void ***list, size_t *n, void *item) {
  void **grown = item ? realloc(*list, (*n + 1) * sizeof(void *)) : NULL;
  if (!grown)
    return NULL;
  *list = grown;
  grown[(*n)++] = item;
  return item;
}

static int read_txn(char *text, Store__TxnRequest *txn) {
  unsigned group = 0, line_number = 0;
  for (char *line = text, *next; line; line = next) {
    next = strchr(line, '\n');
    if (next)
      *next++ = 0;
    line_number++;
    if (!line[strspn(line, " \t\r")]) {
      if (next || line[0])
        group++;
      continue;
    }
    void *added = NULL;
    if (group == 0)
      added = append((void ***)&txn->compare, &txn->n_compare, read_compare(line));
    else if (group == 1)
      added = append((void ***)&txn->success, &txn->n_success, read_op(line));
    else if (group == 2)
      added = append((void ***)&txn->failure, &txn->n_failure, read_op(line));
    if (!added) {
      fprintf(stderr, "orca-storectl: txn: line %u is not understood\n", line_number);
      return -1;
    }
  }
  return 0;
}

int sctl_txn(struct sctl *ctl) {
  struct buf text = BUF_INIT((size_t)8 << 20);
  Store__Call *call = malloc(sizeof *call);
  Store__TxnRequest *txn = malloc(sizeof *txn);
  int rc = 1;
  if (!call || !txn || sctl_read_stdin(&text) < 0) {
    free(call);
    free(txn);
    buf_free(&text);
    return sctl_usage("txn: stdin cannot be read");
  }
  store__call__init(call);
  store__txn_request__init(txn);
  call->body_case = STORE__CALL__BODY_TXN;
  call->txn = txn;
  rc = text.len && read_txn((char *)text.data, txn) < 0 ? 2 : sctl_call(ctl, call, show_txn);
  store__call__free_unpacked(call, NULL);
  buf_free(&text);
  return rc;
}

/* ---------------------------------------------------------------- watch */

static void on_item(void *arg, const Store__Item *item) {
  struct sctl *ctl = arg;
  if (item->body_case != STORE__ITEM__BODY_WATCH)
    return;
  for (size_t i = 0; i < item->watch->n_events; i++) {
    const Store__WatchEvent *e = item->watch->events[i];
    bool deleted = PB_GET(e, type, STORE__EVENT_TYPE__PUT) == STORE__EVENT_TYPE__DELETE;
    if (!e->kv)
      continue;
    if (ctl->json) {
      printf("{\"type\":\"%s\",\"revision\":%" PRIu64 ",\"kv\":", deleted ? "delete" : "put", PB_GET(item->watch, revision, 0));
      print_kv_json(e->kv, deleted);
      printf("}\n");
      continue;
    }
    printf("%s %" PRIu64 " ", deleted ? "DELETE" : "PUT", PB_GET(item->watch, revision, 0));
    sctl_print_bytes(stdout, &e->kv->key);
    if (!deleted) {
      putchar(' ');
      sctl_print_bytes(stdout, &e->kv->value);
    }
    putchar('\n');
  }
  if (fflush(stdout) != 0)
    sctl_end(ctl, 0); /* nobody reads any more */
}

static void on_end(void *arg, const struct err *err) {
  struct sctl *ctl = arg;
  sctl_end(ctl, err ? sctl_fail(err) : 0);
}

int sctl_watch(struct sctl *ctl) {
  if (ctl->argc != 1)
    return sctl_usage("watch: one KEY");
  struct err err;
  Store__Call call = STORE__CALL__INIT;
  Store__WatchRequest watch = STORE__WATCH_REQUEST__INIT;
  Store__KeyRange range = STORE__KEY_RANGE__INIT, *ranges = &range;
  int rc = 1;
  if (sctl_key_range(ctl, ctl->argv[0], &range.key, &range.range_end) == 0) {
    int64_t until = loop_now(ctl->loop) + ctl->timeout_ns;
    while (!storec_is_up(ctl->store) && loop_now(ctl->loop) < until)
      if (loop_once(ctl->loop, 50 * NS_PER_MS, &err) < 0)
        break;
    range.has_key = 1;
    range.has_range_end = range.range_end.len > 0;
    watch.n_ranges = 1;
    watch.ranges = &ranges;
    if (ctl->revision)
      PB_SET(&watch, start_revision, ctl->revision);
    call.body_case = STORE__CALL__BODY_WATCH;
    call.watch = &watch;
    struct storec_stream *s = storec_stream_new(ctl->store, &call, on_item, on_end, ctl, &err);
    rc = s ? sctl_wait(ctl) : sctl_fail(&err);
    storec_stream_free(s);
  }
  free(range.key.data);
  free(range.range_end.data);
  return rc;
}
