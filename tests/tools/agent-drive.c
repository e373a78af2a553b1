/* Plays a master and a keeper to one orca-agent, for its integration tests: makes the keys and the node.toml of a node in DIR, listens as its
 * gateway, takes commands on stdin (one a line) and prints what the agent says as JSON lines on stdout.
 *
 *   agent-drive DIR NODE CLUSTER_ID ADDRESS PORT DOCKER_SOCKET
 *
 *   spec FILE REV                                 reads service.toml; its services are revision REV from now on
 *   cluster FILE                                  cluster.toml, for the next full state
 *   assign PROJECT NAME NUMBER REV EPOCH run|drain|stop [IMAGE]
 *   unassign PROJECT NAME NUMBER
 *   file NAME REV TARGET PATH SHA256              a file of that mount (PATH "-": the mount itself); content: DIR/files/SHA256
 *   packed FILE                                   sends what is in it, a packed node.Item with `desired`, be it one that can be unpacked or not
 *   full                                          sends the whole desired state (also at each hello)
 *   mute, unmute                                  refuses reports, takes them again
 *   hush, speak                                   says nothing at a hello, says all again
 *   keeper                                        connects as the node's keeper
 *   verdict INSTANCE CONTAINER STARTED_MS started|ready|unready|dead REASON…
 *   exec INSTANCE CONTAINER TIMEOUT_MS ARG…
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/bus/bus.h"
#include "common/bus/pb.h"
#include "common/crypto/crypto.h"
#include "common/loop.h"
#include "common/spec/ids.h"
#include "common/spec/spec.h"
#include "proto/keeper.pb-c.h"
#include "proto/node.pb-c.h"

#define MAX_ITEMS 2000u

static struct drive {
  const char *dir, *node;
  struct loop *loop;
  struct bus *bus, *keeper_bus;
  struct bus_call *hello;
  struct bus_conn *keeper;
  struct bus_key_pair agent_keys;
  Model__Revision *revisions[MAX_ITEMS];
  size_t revision_count;
  Node__Assignment *assigned[MAX_ITEMS];
  size_t assigned_count;
  Model__ClusterSpec *cluster;
  struct buf input;
  bool muted, hushed;
} drive;

static void die(const char *what, const struct err *err) {
  fprintf(stderr, "agent-drive: %s: %s\n", what, err ? err->msg : strerror(errno));
  exit(1);
}

static void say(const char *kind, json_t *value) {
  json_t *line = json_pack("{s:o}", kind, value);
  char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
  printf("%s\n", text ? text : "{}");
  fflush(stdout);
  free(text);
  json_decref(line);
}

/* ---- what the agent says ---- */

static json_t *instance_json(const Model__InstanceStatus *st) {
  static const char *const phases[] = {"waiting", "pulling", "creating", "starting", "running", "backoff", "stopping", "exited", "failed"};
  char id[INSTANCE_ID_MAX];
  instance_id(id, PB_STR(st->project), PB_STR(st->service), st->number);
  unsigned phase = st->phase < sizeof phases / sizeof *phases ? st->phase : 0;
  return json_pack("{s:s, s:I, s:s, s:b, s:b, s:s, s:s, s:i, s:i, s:b, s:s, s:I, s:I, s:s}", "id", id, "epoch", (json_int_t)st->epoch, "phase",
                   phases[phase], "ready", st->ready, "started", st->started, "container", PB_STR(st->container_id), "address", PB_STR(st->address),
                   "restarts", (int)st->restarts, "exit_code", (int)st->exit_code, "oom", st->oom_killed, "reason", PB_STR(st->reason), "started_ms",
                   (json_int_t)st->started_ms, "next_try_ms", (json_int_t)st->next_try_ms, "progress", PB_STR(st->progress));
}

static void print_report(const Node__StatusReport *r) {
  if (r->full)
    say("full", json_true());
  if (r->node) {
    json_t *volumes = json_array();
    for (size_t n = 0; n < r->node->n_volumes; n++)
      json_array_append_new(volumes, json_string(r->node->volumes[n]));
    say("node", json_pack("{s:b, s:s, s:i, s:I, s:o}", "docker_ok", r->node->docker_ok, "docker_error", PB_STR(r->node->docker_error), "cpu_milli",
                          (int)r->node->cpu_milli, "memory", (json_int_t)r->node->memory, "volumes", volumes));
  }
  for (size_t n = 0; n < r->n_instances; n++)
    say("status", instance_json(r->instances[n]));
  for (size_t n = 0; n < r->n_gone; n++)
    say("gone", json_string(r->gone[n]));
  for (size_t n = 0; n < r->n_images; n++)
    say("image", json_pack("{s:s, s:I, s:s}", "service", PB_STR(r->images[n]->service), "revision", (json_int_t)r->images[n]->revision, "image",
                           PB_STR(r->images[n]->image)));
  for (size_t n = 0; n < r->n_events; n++)
    say("event", json_pack("{s:s, s:I, s:s}", "kind", PB_STR(r->events[n]->kind), "instance", (json_int_t)r->events[n]->instance, "message",
                           PB_STR(r->events[n]->message)));
  for (size_t n = 0; n < r->n_usage; n++)
    say("usage", json_pack("{s:s, s:I, s:I, s:i}", "instance", PB_STR(r->usage[n]->instance), "memory", (json_int_t)r->usage[n]->memory, "cpu_ns",
                           (json_int_t)r->usage[n]->cpu_ns, "pids", (int)r->usage[n]->pids));
}

static void push_full(void) {
  if (!drive.hello || drive.hushed)
    return;
  Node__DesiredState d = NODE__DESIRED_STATE__INIT;
  PB_SET(&d, full, 1);
  PB_SET(&d, version, 1);
  d.assigned = drive.assigned;
  d.n_assigned = drive.assigned_count;
  d.cluster = drive.cluster;
  Node__Item item = NODE__ITEM__INIT;
  item.body_case = NODE__ITEM__BODY_DESIRED;
  item.desired = &d;
  if (bus_push(drive.hello, &item.base) != 0)
    fprintf(stderr, "agent-drive: not pushed\n");
}

static void push_delta(Node__Assignment *a, char *removed) {
  if (!drive.hello || drive.hushed)
    return;
  Node__DesiredState d = NODE__DESIRED_STATE__INIT;
  d.assigned = &a;
  d.n_assigned = a ? 1 : 0;
  d.removed = &removed;
  d.n_removed = removed ? 1 : 0;
  Node__Item item = NODE__ITEM__INIT;
  item.body_case = NODE__ITEM__BODY_DESIRED;
  item.desired = &d;
  if (bus_push(drive.hello, &item.base) != 0)
    fprintf(stderr, "agent-drive: not pushed\n");
}

static void hello_gone(void *arg) { /* it may have said another one before we hear of this one's end */
  if (drive.hello == arg)
    drive.hello = NULL;
}

static void answer_file(struct bus_call *call, const char *sha256) {
  char path[4096];
  struct err err;
  uint8_t content[65536];
  snprintf(path, sizeof path, "%s/files/%s", drive.dir, sha256);
  FILE *f = fopen(path, "re");
  if (!f) {
    err_errno(&err, errno, "%s", path);
    bus_fail(call, &err);
    return;
  }
  Model__File file = MODEL__FILE__INIT;
  file.has_content = 1;
  file.content.data = content;
  file.content.len = fread(content, 1, sizeof content, f);
  fclose(f);
  Node__Reply reply = NODE__REPLY__INIT;
  reply.body_case = NODE__REPLY__BODY_FILE;
  reply.file = &file;
  bus_reply(call, &reply.base);
}

static void on_call(void *arg, struct bus_conn *conn, struct bus_call *call, const uint8_t *body, size_t len) {
  (void)arg;
  (void)conn;
  static const struct bus_answer_ops ops = {.cancelled = hello_gone};
  struct err err;
  Node__Call *m = (Node__Call *)pb_unpack(&node__call__descriptor, body, len, &err);
  if (!m)
    die("call", &err);
  Node__Done done = NODE__DONE__INIT;
  Node__Reply reply = NODE__REPLY__INIT;
  reply.body_case = NODE__REPLY__BODY_DONE;
  reply.done = &done;
  if (m->body_case == NODE__CALL__BODY_AGENT_HELLO) {
    say("hello", json_string(PB_STR(m->agent_hello->status->name)));
    drive.hello = call;
    bus_answer_on(call, &ops, call);
    push_full();
  } else if (m->body_case == NODE__CALL__BODY_STATUS && !drive.muted) {
    print_report(m->status);
    bus_reply(call, &reply.base);
  } else if (m->body_case == NODE__CALL__BODY_GET_FILE) {
    answer_file(call, PB_STR(m->get_file->sha256));
  } else {
    err_set(&err, ERR_UNAVAILABLE, "muted");
    bus_fail(call, &err);
  }
  node__call__free_unpacked(m, NULL);
}

/* ---- the keeper's part ---- */

static void on_target(void *arg, const uint8_t *body, size_t len) {
  (void)arg;
  struct err err;
  Keeper__Item *item = (Keeper__Item *)pb_unpack(&keeper__item__descriptor, body, len, &err);
  if (!item || item->body_case != KEEPER__ITEM__BODY_TARGETS)
    die("targets", &err);
  const Keeper__Targets *t = item->targets;
  for (size_t n = 0; n < t->n_set; n++)
    say("target", json_pack("{s:s, s:s, s:s, s:I, s:b, s:b, s:b, s:i}", "instance", PB_STR(t->set[n]->instance), "container",
                            PB_STR(t->set[n]->container_id), "address", PB_STR(t->set[n]->address), "started_ms", (json_int_t)t->set[n]->started_ms,
                            "readiness", t->set[n]->readiness != NULL, "liveness", t->set[n]->liveness != NULL, "full", PB_GET(t, full, 0), "port",
                            t->set[n]->readiness ? (int)t->set[n]->readiness->port : 0));
  for (size_t n = 0; n < t->n_removed; n++)
    say("target_removed", json_string(t->removed[n]));
  keeper__item__free_unpacked(item, NULL);
}

static void on_reply(void *arg, const uint8_t *body, size_t len) {
  (void)arg;
  Keeper__Reply *reply = body ? (Keeper__Reply *)pb_unpack(&keeper__reply__descriptor, body, len, NULL) : NULL;
  if (reply && reply->body_case == KEEPER__REPLY__BODY_EXEC)
    say("exec", json_pack("{s:i, s:b, s:s}", "exit_code", (int)reply->exec->exit_code, "timed_out", reply->exec->timed_out, "output",
                          PB_STR(reply->exec->output)));
  if (reply)
    keeper__reply__free_unpacked(reply, NULL);
}

static void on_failed(void *arg, const struct err *why) {
  say(arg ? arg : "failed", json_string(why->msg));
}

static const struct bus_call_ops keeper_ops = {.done = on_reply, .failed = on_failed, .item = on_target};

static void keeper_up(void *arg, struct bus_conn *conn) {
  (void)arg;
  Keeper__Hello hello = KEEPER__HELLO__INIT;
  Keeper__Call call = KEEPER__CALL__INIT;
  call.body_case = KEEPER__CALL__BODY_HELLO;
  call.hello = &hello;
  bus_call(conn, &call.base, 0, &keeper_ops, (char[]){"targets_ended"});
  say("keeper_up", json_true());
}

static void keeper_connect(void) {
  static const struct bus_conn_ops ops = {.up = keeper_up};
  struct err err;
  struct bus_key_pair keys;
  char path[4096], endpoint[4096];
  snprintf(path, sizeof path, "%s/keys", drive.dir);
  snprintf(endpoint, sizeof endpoint, "ipc://%s/run/agent.sock", drive.dir);
  if (bus_key_load(path, "keeper", &keys, &err) < 0)
    die("keeper key", &err);
  drive.keeper_bus = bus_new(drive.loop, &(struct bus_config){.keys = &keys}, &err);
  struct bus_address to = {endpoint, drive.agent_keys.public_key};
  if (!drive.keeper_bus || !(drive.keeper = bus_connect(drive.keeper_bus, &to, 1, &ops, NULL, &err)))
    die("keeper", &err);
}

static void send_verdict(char **word, size_t count) {
  if (count < 5)
    return;
  Keeper__Verdict v = KEEPER__VERDICT__INIT, *list = &v;
  v.instance = word[1];
  v.container_id = word[2];
  PB_SET(&v, started_ms, strtoll(word[3], NULL, 10));
  PB_SET(&v, started, strcmp(word[4], "dead") != 0);
  PB_SET(&v, ready, strcmp(word[4], "ready") == 0);
  PB_SET(&v, live, strcmp(word[4], "dead") != 0);
  v.reason = count > 5 ? word[5] : word[4];
  Keeper__Verdicts m = KEEPER__VERDICTS__INIT;
  m.verdicts = &list;
  m.n_verdicts = 1;
  Keeper__Call call = KEEPER__CALL__INIT;
  call.body_case = KEEPER__CALL__BODY_VERDICTS;
  call.verdicts = &m;
  bus_call(drive.keeper, &call.base, NS_PER_SEC * 5, &keeper_ops, NULL);
}

static void send_exec(char **word, size_t count) {
  if (count < 5)
    return;
  Keeper__Exec m = KEEPER__EXEC__INIT;
  m.instance = word[1];
  m.container_id = word[2];
  PB_SET(&m, timeout_ms, (uint32_t)strtoul(word[3], NULL, 10));
  m.argv = word + 4;
  m.n_argv = count - 4;
  Keeper__Call call = KEEPER__CALL__INIT;
  call.body_case = KEEPER__CALL__BODY_EXEC;
  call.exec = &m;
  bus_call(drive.keeper, &call.base, NS_PER_SEC * 30, &keeper_ops, (char[]){"exec_failed"});
}

/* ---- commands ---- */

static char *slurp(const char *path, size_t *ret_len) {
  static char text[1 << 20];
  FILE *f = fopen(path, "re");
  if (!f)
    die(path, NULL);
  *ret_len = fread(text, 1, sizeof text, f);
  fclose(f);
  return text;
}

static void print_faults(struct spec_faults *faults) {
  for (size_t n = 0; n < faults->count; n++)
    fprintf(stderr, "%s:%u: %s: %s\n", faults->list[n].file, faults->list[n].line, faults->list[n].path, faults->list[n].message);
}

static void read_spec(const char *path, uint64_t number) {
  size_t len;
  char *text = slurp(path, &len);
  struct spec_set set = {0};
  struct spec_faults faults = {0};
  if (spec_parse_services(path, text, len, "shop", &set, &faults) < 0) {
    print_faults(&faults);
    exit(1);
  }
  for (size_t n = 0; n < set.service_count && drive.revision_count < MAX_ITEMS; n++) {
    Model__Revision *rev = malloc(sizeof *rev);
    char hash[65];
    model__revision__init(rev);
    rev->project = strdup(set.services[n]->project);
    rev->name = strdup(set.services[n]->name);
    PB_SET(rev, number, number);
    rev->spec = (Model__ServiceSpec *)pb_clone(&set.services[n]->base);
    spec_hash(rev->spec, hash);
    rev->spec_hash = strdup(hash);
    drive.revisions[drive.revision_count++] = rev;
  }
  spec_set_free(&set);
  spec_faults_free(&faults);
}

/* A mount of the infra directory, as a deploy would have filled it in: content from DIR/files. */
static void add_file(const char *service, uint64_t number, const char *target, const char *path, const char *sha256) {
  for (size_t n = 0; n < drive.revision_count; n++) {
    Model__Revision *rev = drive.revisions[n];
    if (rev->number != number || strcmp(rev->name, service) != 0)
      continue;
    for (size_t m = 0; m < rev->spec->n_mounts; m++) {
      Model__Mount *mount = rev->spec->mounts[m];
      if (strcmp(PB_STR(mount->target), target) != 0)
        continue;
      Model__MountFile *file = malloc(sizeof *file);
      model__mount_file__init(file);
      file->path = strdup(strcmp(path, "-") == 0 ? "" : path);
      file->sha256 = strdup(sha256);
      PB_SET(file, mode, 0644);
      mount->files = realloc(mount->files, (mount->n_files + 1) * sizeof *mount->files);
      mount->files[mount->n_files++] = file;
    }
  }
}

static void read_cluster(const char *path) {
  size_t len;
  char *text = slurp(path, &len);
  struct spec_faults faults = {0};
  if (spec_parse_cluster(path, text, len, &drive.cluster, &faults) < 0) {
    print_faults(&faults);
    exit(1);
  }
}

static size_t find_assigned(const char *project, const char *name, uint64_t number) {
  size_t n = 0;
  for (; n < drive.assigned_count; n++) {
    const Model__Instance *i = drive.assigned[n]->instance;
    if (i->number == number && strcmp(i->service, name) == 0 && strcmp(i->project, project) == 0)
      break;
  }
  return n;
}

static void assign(char **word, size_t count) {
  if (count < 7 || drive.assigned_count == MAX_ITEMS)
    return;
  uint64_t number = strtoull(word[3], NULL, 10), revision = strtoull(word[4], NULL, 10);
  Node__Assignment *a = malloc(sizeof *a);
  Model__Instance *i = malloc(sizeof *i);
  node__assignment__init(a);
  model__instance__init(i);
  i->project = strdup(word[1]);
  i->service = strdup(word[2]);
  i->node = strdup(drive.node);
  PB_SET(i, number, number);
  PB_SET(i, revision, revision);
  PB_SET(i, epoch, strtoull(word[5], NULL, 10));
  PB_SET(i, desired,
         strcmp(word[6], "stop") == 0    ? MODEL__DESIRED__DESIRED_STOP
         : strcmp(word[6], "drain") == 0 ? MODEL__DESIRED__DESIRED_DRAIN
                                         : MODEL__DESIRED__DESIRED_RUN);
  a->instance = i;
  if (count > 7)
    a->image = strdup(word[7]);
  for (size_t n = 0; n < drive.revision_count; n++)
    if (drive.revisions[n]->number == revision && strcmp(drive.revisions[n]->name, word[2]) == 0 && strcmp(drive.revisions[n]->project, word[1]) == 0)
      a->revision = (Model__Revision *)pb_clone(&drive.revisions[n]->base);
  size_t at = find_assigned(word[1], word[2], number);
  if (at == drive.assigned_count)
    drive.assigned_count++;
  else
    node__assignment__free_unpacked(drive.assigned[at], NULL);
  drive.assigned[at] = a;
  push_delta(a, NULL);
}

/* Whatever a master, or who broke into one, could say: its bytes go out as they are, as the one field of an item. */
static void push_packed(const char *path) {
  size_t len;
  char *data = slurp(path, &len);
  if (len < 2 || data[0] != (1 << 3 | PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED))
    die(path, NULL);
  ProtobufCMessageUnknownField desired = {.tag = 1, .wire_type = PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED, .len = len - 1, .data = (uint8_t *)data + 1};
  Node__Item item = NODE__ITEM__INIT;
  item.base.n_unknown_fields = 1;
  item.base.unknown_fields = &desired;
  if (!drive.hello || bus_push(drive.hello, &item.base) != 0)
    fprintf(stderr, "agent-drive: not pushed\n");
}

static void unassign(char **word, size_t count) {
  if (count < 4)
    return;
  uint64_t number = strtoull(word[3], NULL, 10);
  char id[INSTANCE_ID_MAX];
  instance_id(id, word[1], word[2], number);
  size_t at = find_assigned(word[1], word[2], number);
  if (at < drive.assigned_count) {
    node__assignment__free_unpacked(drive.assigned[at], NULL);
    drive.assigned[at] = drive.assigned[--drive.assigned_count];
  }
  push_delta(NULL, id);
}

static void command(char *line) {
  char *word[64], *save = NULL;
  size_t count = 0;
  for (char *w = strtok_r(line, " ", &save); w && count < 64; w = strtok_r(NULL, " ", &save))
    word[count++] = w;
  if (!count)
    return;
  const char *verb = word[0];
  if (strcmp(verb, "spec") == 0 && count == 3)
    read_spec(word[1], strtoull(word[2], NULL, 10));
  else if (strcmp(verb, "file") == 0 && count == 6)
    add_file(word[1], strtoull(word[2], NULL, 10), word[3], word[4], word[5]);
  else if (strcmp(verb, "cluster") == 0 && count == 2)
    read_cluster(word[1]);
  else if (strcmp(verb, "assign") == 0)
    assign(word, count);
  else if (strcmp(verb, "unassign") == 0)
    unassign(word, count);
  else if (strcmp(verb, "packed") == 0 && count == 2)
    push_packed(word[1]);
  else if (strcmp(verb, "full") == 0)
    push_full();
  else if (strcmp(verb, "mute") == 0 || strcmp(verb, "unmute") == 0)
    drive.muted = verb[0] == 'm';
  else if (strcmp(verb, "hush") == 0 || strcmp(verb, "speak") == 0)
    drive.hushed = verb[0] == 'h';
  else if (strcmp(verb, "keeper") == 0)
    keeper_connect();
  else if (strcmp(verb, "verdict") == 0)
    send_verdict(word, count);
  else if (strcmp(verb, "exec") == 0)
    send_exec(word, count);
  else
    fprintf(stderr, "agent-drive: not understood: %s\n", verb);
}

static void on_input(void *arg, uint32_t events) {
  (void)arg;
  (void)events;
  char data[65536];
  ssize_t n = read(STDIN_FILENO, data, sizeof data);
  if (n <= 0) {
    loop_stop(drive.loop);
    return;
  }
  buf_add(&drive.input, data, (size_t)n);
  char *end;
  while (drive.input.len && (end = memchr(drive.input.data, '\n', drive.input.len))) {
    *end = 0;
    size_t used = (size_t)(end - (char *)drive.input.data) + 1;
    command((char *)drive.input.data);
    buf_consume(&drive.input, used);
  }
}

/* ---- a node's folder ---- */

static void load_or_make(const char *dir, const char *name, struct bus_key_pair *pair) {
  struct err err;
  if (bus_key_load(dir, name, pair, &err) == 0)
    return;
  if (bus_key_new(pair, &err) < 0 || bus_key_save(dir, name, pair, &err) < 0)
    die(name, &err);
}

static void write_config(char **argv, const char *keys, const char *gateway_key) {
  char path[4096];
  snprintf(path, sizeof path, "%s/node.toml", drive.dir);
  FILE *f = fopen(path, "we");
  if (!f)
    die(path, NULL);
  fprintf(f,
          "[node]\nname = \"%s\"\naddress = \"%s\"\nrole = \"worker\"\nstate_dir = \"%s/state\"\nrun_dir = \"%s/run\"\nkey_dir = \"%s\"\ndocker = "
          "\"%s\"\n"
          "[cluster]\nid = \"%s\"\nmasters = [{ name = \"m1\", address = \"127.0.0.1\", key = \"%s\" }]\n[ports]\ngateway = %s\n",
          argv[2], argv[4], drive.dir, drive.dir, keys, argv[6], argv[3], gateway_key, argv[5]);
  fclose(f);
}

static bool allow(void *arg, const char *public_key, char who[64], uint64_t *tag) {
  (void)arg;
  snprintf(who, 64, "agent@%.50s", drive.node);
  *tag = 0;
  return strcmp(public_key, drive.agent_keys.public_key) == 0;
}

int main(int argc, char **argv) {
  static const struct bus_conn_ops ops = {.call = on_call};
  static struct loop_io input = {.cb = on_input};
  struct err err;
  struct bus_key_pair gateway, keeper;
  char keys[4096], endpoint[128];
  if (argc != 7) {
    fprintf(stderr, "usage: agent-drive DIR NODE CLUSTER_ID ADDRESS PORT DOCKER_SOCKET\n");
    return 2;
  }
  setenv("ZSYS_SIGHANDLER", "false", 1);
  drive.dir = argv[1];
  drive.node = argv[2];
  drive.input = BUF_INIT(1 << 20);
  snprintf(keys, sizeof keys, "%s/keys", drive.dir);
  if ((mkdir(drive.dir, 0755) < 0 && errno != EEXIST) || (mkdir(keys, 0700) < 0 && errno != EEXIST))
    die(keys, NULL);
  load_or_make(keys, "apiserver", &gateway);
  load_or_make(keys, "agent", &drive.agent_keys);
  load_or_make(keys, "keeper", &keeper);
  write_config(argv, keys, gateway.public_key);
  snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%s", argv[5]);
  drive.loop = loop_new(NULL, &err);
  drive.bus = drive.loop ? bus_new(drive.loop, &(struct bus_config){.keys = &gateway}, &err) : NULL;
  struct bus_listener *listener = drive.bus ? bus_listen(drive.bus, endpoint, allow, &ops, NULL, &err) : NULL;
  if (!listener || loop_io_add(drive.loop, &input, STDIN_FILENO, EPOLLIN, &err) < 0)
    die("gateway", &err);
  say("listening", json_string(bus_listener_endpoint(listener)));
  if (loop_run(drive.loop, &err) < 0)
    die("loop", &err);
  bus_free(drive.keeper_bus);
  bus_free(drive.bus);
  loop_free(drive.loop);
  return 0;
}
