#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/bus/pb.h"
#include "common/crypto/crypto.h"
#include "orca-store/storectl/storectl.h"

static int show_status(struct sctl *ctl, const Store__Reply *reply) {
  const Store__StatusReply *s = reply->status;
  if (ctl->json) {
    printf("{\"node\":\"%s\",\"version\":\"%s\",\"leader\":%s,\"leader_node\":\"%s\",\"term\":%" PRIu64 ",\"commit_index\":%" PRIu64
           ",\"applied_index\":%" PRIu64 ",\"revision\":%" PRIu64 ",\"compact_revision\":%" PRIu64 ",\"db_size\":%" PRIu64 ",\"db_used\":%" PRIu64
           ",\"log_size\":%" PRIu64 ",\"keys\":%" PRIu64 ",\"watchers\":%u,\"refused\":%" PRIu64 ",\"fault\":",
           PB_STR(s->node), PB_STR(s->version), PB_GET(s, leader, 0) ? "true" : "false", PB_STR(s->leader_node), PB_GET(s, term, 0),
           PB_GET(s, commit_index, 0), PB_GET(s, applied_index, 0), PB_GET(s, revision, 0), PB_GET(s, compact_revision, 0), PB_GET(s, db_size, 0),
           PB_GET(s, db_used, 0), PB_GET(s, log_size, 0), PB_GET(s, keys, 0), PB_GET(s, watchers, 0), PB_GET(s, refused, 0));
    ProtobufCBinaryData fault = {strlen(PB_STR(s->fault)), (uint8_t *)(uintptr_t)PB_STR(s->fault)};
    sctl_print_json_bytes(stdout, &fault);
    printf("}\n");
    return 0;
  }
  printf("node       %s%s\nversion    %s\nterm       %" PRIu64 "\nindex      %" PRIu64 " committed, %" PRIu64 " applied\nrevision   %" PRIu64
         ", history from %" PRIu64 "\nkeys       %" PRIu64 "\nwatchers   %u\nmap        %" PRIu64 " KiB, %" PRIu64
         " KiB of it used\nlog        %" PRIu64 " KiB\nrefused    %" PRIu64 " peers and messages\n",
         PB_STR(s->node), PB_GET(s, leader, 0) ? " (leader)" : "", PB_STR(s->version), PB_GET(s, term, 0), PB_GET(s, commit_index, 0),
         PB_GET(s, applied_index, 0), PB_GET(s, revision, 0), PB_GET(s, compact_revision, 0), PB_GET(s, keys, 0), PB_GET(s, watchers, 0),
         PB_GET(s, db_size, 0) >> 10, PB_GET(s, db_used, 0) >> 10, PB_GET(s, log_size, 0) >> 10, PB_GET(s, refused, 0));
  if (s->fault)
    printf("fault      %s\n", s->fault);
  return s->fault ? 1 : 0;
}

int sctl_status(struct sctl *ctl) {
  Store__Call call = STORE__CALL__INIT;
  Store__StatusRequest q = STORE__STATUS_REQUEST__INIT;
  call.body_case = STORE__CALL__BODY_STATUS;
  call.status = &q;
  return sctl_call(ctl, &call, show_status);
}

static int show_done(struct sctl *ctl, const Store__Reply *reply) {
  (void)reply;
  printf("%s\n", ctl->json ? "{}" : "OK");
  return 0;
}

int sctl_compact(struct sctl *ctl) {
  Store__Call call = STORE__CALL__INIT;
  Store__Compact c = STORE__COMPACT__INIT;
  uint64_t revision;
  if (ctl->argc != 1 || sctl_number(ctl->argv[0], 10, &revision) < 0)
    return sctl_usage("compact: one REVISION");
  PB_SET(&c, revision, revision);
  call.body_case = STORE__CALL__BODY_COMPACT;
  call.compact = &c;
  return sctl_call(ctl, &call, show_done);
}

/* ---------------------------------------------------------------- leases: ids in base 16, as etcdctl shows them */

static int show_lease(struct sctl *ctl, const Store__Reply *reply) {
  const Store__Lease *l = reply->lease;
  uint64_t ttl = PB_GET(l, ttl_ms, 0);
  if (ctl->json)
    printf("{\"id\":\"%" PRIx64 "\",\"ttl_ms\":%" PRIu64 "}\n", PB_GET(l, id, 0), ttl);
  else if (ttl)
    printf("%" PRIx64 " %" PRIu64 " ms\n", PB_GET(l, id, 0), ttl);
  else
    printf("%" PRIx64 " has ended\n", PB_GET(l, id, 0));
  return ttl ? 0 : 1;
}

static int show_leases(struct sctl *ctl, const Store__Reply *reply) {
  const Store__Leases *all = reply->leases;
  if (ctl->json)
    putchar('[');
  for (size_t i = 0; i < all->n_leases; i++) {
    const Store__Lease *l = all->leases[i];
    if (ctl->json) {
      printf("%s{\"id\":\"%" PRIx64 "\",\"ttl_ms\":%" PRIu64 ",\"left_ms\":%" PRIu64 ",\"keys\":[", i ? "," : "", PB_GET(l, id, 0),
             PB_GET(l, ttl_ms, 0), PB_GET(l, left_ms, 0));
      for (size_t k = 0; k < l->n_keys; k++) {
        if (k)
          putchar(',');
        sctl_print_json_bytes(stdout, &l->keys[k]);
      }
      printf("]}");
      continue;
    }
    printf("%" PRIx64 " %" PRIu64 " ms, %" PRIu64 " ms left", PB_GET(l, id, 0), PB_GET(l, ttl_ms, 0), PB_GET(l, left_ms, 0));
    for (size_t k = 0; k < l->n_keys; k++) {
      putchar(' ');
      sctl_print_bytes(stdout, &l->keys[k]);
    }
    putchar('\n');
  }
  if (ctl->json)
    printf("]\n");
  return 0;
}

int sctl_lease(struct sctl *ctl) {
  static const char *const how = "lease: grant SECONDS | keep-alive ID | revoke ID | list";
  Store__Call call = STORE__CALL__INIT;
  Store__LeaseGrant grant = STORE__LEASE_GRANT__INIT;
  Store__LeaseKeepAlive keep = STORE__LEASE_KEEP_ALIVE__INIT;
  Store__LeaseRevoke revoke = STORE__LEASE_REVOKE__INIT;
  Store__LeaseList list = STORE__LEASE_LIST__INIT;
  uint64_t n = 0;
  const char *verb = ctl->argc ? ctl->argv[0] : "";
  if (strcmp(verb, "list") == 0 && ctl->argc == 1) {
    call.body_case = STORE__CALL__BODY_LEASE_LIST;
    call.lease_list = &list;
    return sctl_call(ctl, &call, show_leases);
  }
  bool granting = strcmp(verb, "grant") == 0;
  if (ctl->argc != 2 || sctl_number(ctl->argv[1], granting ? 10 : 16, &n) < 0 || (granting && n > UINT64_MAX / 1000))
    return sctl_usage(how);
  if (granting) {
    PB_SET(&grant, ttl_ms, n * 1000);
    call.body_case = STORE__CALL__BODY_LEASE_GRANT;
    call.lease_grant = &grant;
    return sctl_call(ctl, &call, show_lease);
  }
  if (strcmp(verb, "keep-alive") == 0) {
    PB_SET(&keep, id, n);
    call.body_case = STORE__CALL__BODY_LEASE_KEEP_ALIVE;
    call.lease_keep_alive = &keep;
    return sctl_call(ctl, &call, show_lease);
  }
  if (strcmp(verb, "revoke") == 0) {
    PB_SET(&revoke, id, n);
    call.body_case = STORE__CALL__BODY_LEASE_REVOKE;
    call.lease_revoke = &revoke;
    return sctl_call(ctl, &call, show_done);
  }
  return sctl_usage(how);
}

/* ---------------------------------------------------------------- snapshot save */

struct saving {
  struct sctl *ctl;
  int fd;
  uint64_t size;
  bool whole, failed;
  struct crypto_sha256 hash;
};

static void keep(struct saving *s, const void *data, size_t len) {
  for (size_t put = 0; !s->failed && put < len;) {
    ssize_t n = write(s->fd, (const uint8_t *)data + put, len - put);
    if (n < 0 && errno != EINTR) {
      perror("orca-storectl");
      s->failed = true;
    }
    put += n > 0 ? (size_t)n : 0;
  }
}

static void on_chunk(void *arg, const Store__Item *item) {
  struct saving *s = arg;
  const Store__Chunk *c = item->body_case == STORE__ITEM__BODY_CHUNK ? item->chunk : NULL;
  if (!c || s->failed)
    return;
  if (PB_GET(c, offset, 0) != s->size) {
    fprintf(stderr, "orca-storectl: the store skipped a part of its snapshot\n");
    s->failed = true;
  }
  keep(s, c->data.data, c->data.len);
  crypto_sha256_add(&s->hash, c->data.data, c->data.len);
  s->size += c->data.len;
  s->whole |= PB_GET(c, last, 0);
  if (s->failed)
    sctl_end(s->ctl, 1);
}

static void keep_trailer(struct saving *s) {
  struct sctl_trailer trailer = {.magic = SCTL_TRAILER_MAGIC};
  uint8_t cluster[32];
  crypto_sha256(s->ctl->config.cluster_id, strlen(s->ctl->config.cluster_id), cluster);
  memcpy(trailer.cluster, cluster, sizeof trailer.cluster);
  crypto_sha256_end(&s->hash, trailer.sha256);
  keep(s, &trailer, sizeof trailer);
}

static void on_saved(void *arg, const struct err *err) {
  struct saving *s = arg;
  sctl_end(s->ctl, err ? sctl_fail(err) : s->whole ? 0 : 1);
}

static int save(struct sctl *ctl) {
  struct err err;
  struct saving s = {.ctl = ctl, .fd = open(ctl->argv[1], O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600)};
  if (s.fd < 0) {
    err_errno(&err, errno, "%s", ctl->argv[1]);
    return sctl_fail(&err);
  }
  crypto_sha256_start(&s.hash);
  int64_t until = loop_now(ctl->loop) + ctl->timeout_ns;
  while (!storec_is_up(ctl->store) && loop_now(ctl->loop) < until)
    if (loop_once(ctl->loop, 50 * NS_PER_MS, &err) < 0)
      break;
  Store__Call call = STORE__CALL__INIT;
  Store__Snapshot q = STORE__SNAPSHOT__INIT;
  call.body_case = STORE__CALL__BODY_SNAPSHOT;
  call.snapshot = &q;
  struct storec_stream *stream = storec_stream_new(ctl->store, &call, on_chunk, on_saved, &s, &err);
  int rc = stream ? sctl_wait(ctl) : sctl_fail(&err);
  storec_stream_free(stream);
  if (rc == 0)
    keep_trailer(&s);
  if (rc == 0 && s.failed)
    rc = 1;
  if (rc == 0 && fsync(s.fd) < 0) {
    err_errno(&err, errno, "%s", ctl->argv[1]);
    rc = sctl_fail(&err);
  }
  close(s.fd);
  if (rc)
    unlink(ctl->argv[1]);
  else
    printf(ctl->json ? "{\"size\":%" PRIu64 "}\n" : "%" PRIu64 " bytes\n", s.size);
  return rc;
}

int sctl_snapshot(struct sctl *ctl) {
  if (ctl->argc == 2 && strcmp(ctl->argv[0], "save") == 0)
    return save(ctl);
  if (ctl->argc == 2 && strcmp(ctl->argv[0], "restore") == 0)
    return sctl_restore(ctl, ctl->argv[1]);
  return sctl_usage("snapshot: save FILE, or restore FILE");
}
