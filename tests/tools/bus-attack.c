/* A hostile peer with a good key: connects to a daemon's bus as that key's owner and says what it must not. Speaks raw ZeroMQ, so that nothing
 * of ours stands between it and the listener. Prints one JSON line with what came back.
 *
 *   bus-attack KEY_DIR ROLE ENDPOINT SERVER ATTACK [ARGUMENT]
 *
 * ROLE is a key of KEY_DIR, or "stranger" (a key of nobody's); SERVER the role whose public key the listener has.
 *
 *   ping                  says hello and goes
 *   frames                malformed and misplaced frames, random ones among them
 *   bodies                calls whose bodies are no calls: random, unknown, too deep, not UTF-8, repeated where nothing repeats
 *   bomb                  bodies of 8 MiB that unpack into hundreds of times as much
 *   large                 messages over the bus's limit
 *   flood N               N calls, answers unread until the end
 *   streams N             N streams that are given no credit
 *   hellos N              N conversations, opened one after the other and left open
 *   node                  every call of the node gateway
 *   status INSTANCE       reports about INSTANCE and others' instances: epochs, numbers and names of all kinds
 *   events N              N reports full of events
 *   store                 every call of the store, with keys, numbers and sizes that nobody may use
 *   leases N              N leases
 *   ipc INSTANCE          every call of the agent's own socket
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#include "common/bus/bus.h"
#include "common/bus/frame.h"
#include "common/bus/pb.h"
#include "common/spec/ids.h"
#include "proto/keeper.pb-c.h"
#include "proto/node.pb-c.h"
#include "proto/store.pb-c.h"

static struct attack {
  struct bus_key_pair own;
  char server[BUS_KEY_LEN + 1];
  const char *endpoint;
  void *zmq, *socket;
  uint64_t id;
  unsigned sent, unsent, replies, items, refused;
  unsigned codes[ERR_CODE_COUNT];
} at;

static void die(const char *what) {
  fprintf(stderr, "bus-attack: %s\n", what);
  exit(2);
}

static int64_t now_ms(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* ---- raw talk ---- */

static void *dial(void) {
  void *s = zmq_socket(at.zmq, ZMQ_DEALER);
  int linger = 0, hwm = 0, timeout = 3000;
  zmq_setsockopt(s, ZMQ_LINGER, &linger, sizeof linger);
  zmq_setsockopt(s, ZMQ_SNDHWM, &hwm, sizeof hwm);
  zmq_setsockopt(s, ZMQ_SNDTIMEO, &timeout, sizeof timeout);
  zmq_setsockopt(s, ZMQ_CURVE_SERVERKEY, at.server, sizeof at.server);
  zmq_setsockopt(s, ZMQ_CURVE_PUBLICKEY, at.own.public_key, sizeof at.own.public_key);
  zmq_setsockopt(s, ZMQ_CURVE_SECRETKEY, at.own.secret_key, sizeof at.own.secret_key);
  if (zmq_connect(s, at.endpoint) != 0)
    die("cannot connect");
  return s;
}

static void send_parts(void *s, const void *header, size_t len, const void *body, size_t body_len) {
  if (zmq_send(s, header, len, ZMQ_SNDMORE) < 0 || zmq_send(s, body, body_len, 0) < 0)
    at.unsent++;
  else
    at.sent++;
}

static void send_frame(void *s, const struct bus_frame *frame, const void *body, size_t len) {
  uint8_t header[FRAME_MAX];
  send_parts(s, header, bus_frame_encode(frame, header), body, len);
}

static void say_ping(void *s) {
  send_frame(s, &(struct bus_frame){.kind = BUS__KIND__PING, .session = 0x6f726361}, NULL, 0);
}

static void count_frame(const uint8_t *data, size_t len, size_t body_len) {
  struct bus_frame frame = {0};
  struct err err;
  if (bus_frame_decode(data, len, body_len, &frame, &err) < 0)
    return;
  if (frame.kind == BUS__KIND__REPLY)
    at.replies++;
  else if (frame.kind == BUS__KIND__ITEM)
    at.items++;
  else if (frame.kind == BUS__KIND__ERROR && frame.error.code < ERR_CODE_COUNT)
    at.codes[frame.error.code]++;
  at.refused += frame.kind == BUS__KIND__ERROR && frame.id == 0;
}

/* Takes what has come, for so long; a PING now and then, or the peer thinks us dead. true when anything came. */
static bool listen_for(void *s, int ms) {
  bool any = false;
  int64_t end = now_ms() + ms, ping_at = now_ms() + 500;
  for (int64_t left = ms; left >= 0; left = end - now_ms()) {
    zmq_pollitem_t item = {.socket = s, .events = ZMQ_POLLIN};
    if (zmq_poll(&item, 1, left < 100 ? left : 100) > 0) {
      uint8_t header[FRAME_MAX];
      zmq_msg_t body;
      int n = zmq_recv(s, header, sizeof header, ZMQ_DONTWAIT);
      int more = 0;
      size_t size = sizeof more, len = n > 0 && (size_t)n <= sizeof header ? (size_t)n : 0, body_len = 0;
      while (zmq_getsockopt(s, ZMQ_RCVMORE, &more, &size) == 0 && more) {
        zmq_msg_init(&body);
        if (zmq_msg_recv(&body, s, ZMQ_DONTWAIT) >= 0)
          body_len = zmq_msg_size(&body);
        zmq_msg_close(&body);
      }
      any = true;
      count_frame(header, len, body_len);
    }
    if (now_ms() >= ping_at) {
      say_ping(s);
      ping_at = now_ms() + 500;
    }
  }
  return any;
}

static bool open_talk(void) {
  at.socket = dial();
  say_ping(at.socket);
  for (int i = 0; i < 30; i++)
    if (listen_for(at.socket, 50))
      return true;
  return false;
}

static void send_call(const void *body, size_t len, uint32_t deadline_ms, uint32_t credit) {
  send_frame(at.socket, &(struct bus_frame){.kind = BUS__KIND__CALL, .id = ++at.id, .deadline_ms = deadline_ms, .credit = credit}, body, len);
}

static void call_with(const ProtobufCMessage *m, uint32_t deadline_ms, uint32_t credit) {
  size_t len = protobuf_c_message_get_packed_size(m);
  uint8_t *data = malloc(len ? len : 1);
  if (!data)
    die("no memory");
  protobuf_c_message_pack(m, data);
  send_call(data, len, deadline_ms, credit);
  free(data);
}

static void call(const ProtobufCMessage *m) {
  call_with(m, 5000, 0);
}

static uint64_t draw(void) { /* the same each time: a failure can be had again */
  static uint64_t state = 88172645463325252u;
  state ^= state << 13;
  state ^= state >> 7;
  return state ^= state << 17;
}

static void fill(uint8_t *data, size_t len) {
  for (size_t i = 0; i < len; i++)
    data[i] = (uint8_t)draw();
}

static char *text_of(char c, size_t len) {
  char *text = malloc(len + 1);
  if (!text)
    die("no memory");
  memset(text, c, len);
  text[len] = 0;
  return text;
}

/* ---- frames and bodies ---- */

static void attack_frames(void) {
  static const uint8_t none[1];
  uint8_t junk[4096];
  void *s = at.socket;
  zmq_send(s, "x", 1, 0);
  zmq_send(s, none, 0, 0);
  for (int i = 0; i < 20; i++)
    zmq_send(s, "part", 4, i < 19 ? ZMQ_SNDMORE : 0);
  send_parts(s, none, 0, none, 0);
  for (int i = 0; i < 500; i++) {
    size_t len = draw() % sizeof junk;
    fill(junk, sizeof junk);
    send_parts(s, junk, len, junk, draw() % sizeof junk);
  }
  const struct bus_frame misplaced[] = {
      {.version = 99, .kind = BUS__KIND__CALL, .id = 1},
      {.version = UINT32_MAX, .kind = BUS__KIND__PING, .session = 1},
      {.kind = BUS__KIND__PONG, .session = 5},
      {.kind = BUS__KIND__CALL},
      {.kind = BUS__KIND__REPLY, .id = 7},
      {.kind = BUS__KIND__REPLY, .id = UINT64_MAX},
      {.kind = BUS__KIND__ITEM, .id = 1},
      {.kind = BUS__KIND__ITEM, .id = UINT64_MAX},
      {.kind = BUS__KIND__CREDIT, .id = 1, .credit = UINT32_MAX},
      {.kind = BUS__KIND__CREDIT, .id = UINT64_MAX, .credit = UINT32_MAX},
      {.kind = BUS__KIND__CANCEL, .id = UINT64_MAX},
      {.kind = BUS__KIND__ERROR, .id = 3, .error = {.code = ERR_INTERNAL, .msg = "\x1b[2J\n"}},
      {.kind = (Bus__Kind)4711, .id = 1},
  };
  for (size_t i = 0; i < sizeof misplaced / sizeof *misplaced; i++)
    send_frame(s, &misplaced[i], NULL, 0);
  for (int i = 0; i < 50; i++) /* one id again and again */
    send_frame(s, &(struct bus_frame){.kind = BUS__KIND__CALL, .id = 4242, .credit = 1}, none, 0);
  listen_for(s, 500);
}

static void repeat(uint8_t *data, size_t len, const void *unit, size_t unit_len) {
  for (size_t i = 0; i + unit_len <= len; i += unit_len)
    memcpy(data + i, unit, unit_len);
}

static void attack_bodies(void) {
  uint8_t junk[2048];
  send_call("", 0, 5000, 0);                                                  /* a oneof of nothing */
  send_call("\xc2\x3e\x02\x08\x01", 5, 5000, 0);                              /* of field 1000 */
  send_call("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 10, 5000, 0);         /* a length beyond everything */
  send_call("\x0b\x0c", 2, 5000, 0);                                          /* groups */
  send_call("\x08\x01\x10\x02\x18\x03\x20\x04\x28\x05\x30\x06", 12, 5000, 0); /* numbers where messages belong */
  for (unsigned field = 1; field <= 10; field++) {
    uint8_t member[3] = {(uint8_t)(field << 3 | 2), 0, 0};
    send_call(member, 2, 5000, 0); /* each call with nothing in it */
    uint8_t *many = malloc(200000);
    if (!many)
      die("no memory");
    repeat(many, 200000, member, 2); /* and the same a hundred thousand times: merging them all would take for ever */
    send_call(many, 200000, 5000, 0);
    free(many);
  }
  for (int i = 0; i < 1000; i++) {
    size_t len = draw() % sizeof junk;
    fill(junk, len);
    if (len > 3) /* often a good start */
      junk[0] = (uint8_t)((draw() % 11) << 3 | 2), junk[1] = (uint8_t)(len - 2 < 128 ? len - 2 : 127);
    send_call(junk, len, 5000, 0);
  }
  uint8_t deep[4000];
  memset(deep, 0x0a, sizeof deep);
  send_call(deep, sizeof deep, 5000, 0);
  listen_for(at.socket, 1500);
}

static void attack_bomb(void) {
  size_t len = BUS_MAX_MESSAGE;
  uint8_t *data = malloc(len);
  if (!data)
    die("no memory");
  for (unsigned field = 1; field <= 12; field++) {
    /* One call, and in it: nothing but empty members of one repeated field. */
    for (unsigned inner = 1; inner <= 8; inner++) {
      uint8_t unit[2] = {(uint8_t)(inner << 3 | 2), 0};
      size_t inside = len - 6;
      data[0] = (uint8_t)(field << 3 | 2);
      for (size_t n = 1, left = inside; n < 6; n++, left >>= 7)
        data[n] = (uint8_t)((left & 0x7f) | (n < 5 ? 0x80 : 0));
      repeat(data + 6, inside, unit, 2);
      if (inner == 1 || field <= 4)
        send_call(data, len, 5000, 0);
      listen_for(at.socket, 20);
    }
  }
  repeat(data, len, "\xf8\x01\x01", 3); /* unknown numbers */
  send_call(data, len, 5000, 0);
  repeat(data, len, "\xfa\x01\x00", 3); /* unknown texts */
  send_call(data, len, 5000, 0);
  free(data);
  listen_for(at.socket, 2000);
}

static void attack_large(void) {
  size_t len = BUS_MAX_MESSAGE + (1u << 20);
  uint8_t *data = calloc(1, len);
  if (!data)
    die("no memory");
  for (int i = 0; i < 5; i++) {
    send_call(data, len, 5000, 0); /* ZeroMQ itself cuts this one off */
    listen_for(at.socket, 100);
    zmq_close(at.socket);
    open_talk();
    send_call(data, BUS_MAX_MESSAGE + 1, 5000, 0); /* within ZeroMQ's limit, over ours */
    send_call(data, BUS_MAX_MESSAGE, 5000, 0);
    listen_for(at.socket, 100);
  }
  free(data);
}

/* ---- floods ---- */

static void any_call(const char *server, bool stream, uint32_t credit) {
  if (strcmp(server, "store") == 0) {
    Store__Call c = STORE__CALL__INIT;
    Store__RangeRequest range = STORE__RANGE_REQUEST__INIT;
    Store__WatchRequest watch = STORE__WATCH_REQUEST__INIT;
    Store__KeyRange key = STORE__KEY_RANGE__INIT, *keys[] = {&key};
    char from[] = "/services/", to[] = "/services0";
    range.has_key = range.has_range_end = key.has_key = key.has_range_end = 1;
    range.key = key.key = (ProtobufCBinaryData){strlen(from), (uint8_t *)from};
    range.range_end = key.range_end = (ProtobufCBinaryData){strlen(to), (uint8_t *)to};
    watch.ranges = keys;
    watch.n_ranges = 1;
    PB_SET(&watch, start_revision, 1);
    c.body_case = stream ? STORE__CALL__BODY_WATCH : STORE__CALL__BODY_RANGE;
    if (stream)
      c.watch = &watch;
    else
      c.range = &range;
    call_with(&c.base, stream ? 0 : 5000, credit);
  } else if (strcmp(server, "agent") == 0) {
    Keeper__Call c = KEEPER__CALL__INIT;
    Keeper__Hello hello = KEEPER__HELLO__INIT;
    Keeper__Verdicts verdicts = KEEPER__VERDICTS__INIT;
    c.body_case = stream ? KEEPER__CALL__BODY_HELLO : KEEPER__CALL__BODY_VERDICTS;
    if (stream)
      c.hello = &hello;
    else
      c.verdicts = &verdicts;
    call_with(&c.base, stream ? 0 : 5000, credit);
  } else {
    Node__Call c = NODE__CALL__INIT;
    Node__AgentHello hello = NODE__AGENT_HELLO__INIT;
    Node__StatusReport report = NODE__STATUS_REPORT__INIT;
    c.body_case = stream ? NODE__CALL__BODY_AGENT_HELLO : NODE__CALL__BODY_STATUS;
    if (stream)
      c.agent_hello = &hello;
    else
      c.status = &report;
    call_with(&c.base, stream ? 0 : 5000, credit);
  }
}

static void attack_flood(const char *server, int n, bool streams) {
  for (int i = 0; i < n; i++) {
    any_call(server, streams, 0);
    if (i % 1000 == 999)
      say_ping(at.socket);
  }
  listen_for(at.socket, streams ? 4000 : 2000);
}

static void attack_hellos(const char *server, int n) {
  void **sockets = calloc((size_t)n, sizeof *sockets);
  if (!sockets)
    die("no memory");
  zmq_close(at.socket);
  for (int i = 0; i < n; i++) {
    at.socket = sockets[i] = dial();
    say_ping(at.socket);
    any_call(server, true, 64);
  }
  for (int i = 0; i < n; i++)
    listen_for(sockets[i], i == 0 ? 1500 : 0);
  for (int i = 0; i + 1 < n; i++)
    zmq_close(sockets[i]);
  free(sockets);
}

/* ---- the gateway ---- */

static void attack_node(void) {
  char sha[] = "../../../../etc/passwd", good_sha[65], name[] = "\x1b[31mevil\r\nlevel=error";
  Node__AgentHello hello = NODE__AGENT_HELLO__INIT;
  Node__StatusReport report = NODE__STATUS_REPORT__INIT;
  Node__GetFile file = NODE__GET_FILE__INIT;
  Node__ProxyHello proxy = NODE__PROXY_HELLO__INIT;
  Node__RouteAck ack = NODE__ROUTE_ACK__INIT;
  Node__ProxyStats stats = NODE__PROXY_STATS__INIT;
  Node__ServiceStats service = NODE__SERVICE_STATS__INIT, *services[] = {&service};
  Model__NodeStatus node = MODEL__NODE_STATUS__INIT;
  memset(good_sha, 'a', 64);
  good_sha[64] = 0;
  node.name = name;
  node.version = name;
  hello.status = &node;
  file.sha256 = sha;
  proxy.http_address = name;
  PB_SET(&proxy, version, UINT64_MAX);
  PB_SET(&ack, version, UINT64_MAX);
  service.project = service.service = name;
  uint64_t latency[40];
  memset(latency, 0xff, sizeof latency);
  service.latency = latency;
  service.n_latency = 40;
  PB_SET(&service, requests, UINT64_MAX);
  stats.services = services;
  stats.n_services = 1;
  Node__Call calls[] = {
      {.base = PROTOBUF_C_MESSAGE_INIT(&node__call__descriptor), .body_case = NODE__CALL__BODY_AGENT_HELLO, .agent_hello = &hello},
      {.base = PROTOBUF_C_MESSAGE_INIT(&node__call__descriptor), .body_case = NODE__CALL__BODY_STATUS, .status = &report},
      {.base = PROTOBUF_C_MESSAGE_INIT(&node__call__descriptor), .body_case = NODE__CALL__BODY_GET_FILE, .get_file = &file},
      {.base = PROTOBUF_C_MESSAGE_INIT(&node__call__descriptor), .body_case = NODE__CALL__BODY_PROXY_HELLO, .proxy_hello = &proxy},
      {.base = PROTOBUF_C_MESSAGE_INIT(&node__call__descriptor), .body_case = NODE__CALL__BODY_ROUTE_ACK, .route_ack = &ack},
      {.base = PROTOBUF_C_MESSAGE_INIT(&node__call__descriptor), .body_case = NODE__CALL__BODY_PROXY_STATS, .proxy_stats = &stats},
  };
  for (int round = 0; round < 200; round++)
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
      if (round == 0 || i == 2 || i > 3) /* hellos and reports once */
        call_with(&calls[i].base, 5000, 1);
  file.sha256 = good_sha;
  for (int i = 0; i < 200; i++)
    call(&calls[2].base);
  char *many[1000];
  for (size_t i = 0; i < 1000; i++)
    many[i] = name;
  ack.draining = many;
  ack.n_draining = 1000;
  call(&calls[4].base);
  listen_for(at.socket, 1500);
}

/* Values of whatever may have some: "shop/web.1" in every revision but `revision`, and what is no instance. */
static void attack_secrets(const char *instance) {
  char *given = strdup(instance), *huge = text_of('A', 1u << 20), global[] = "_/DB.1", dotted[] = "shop/../_/DB.1", empty[] = "",
       other[] = "shop/web.99";
  if (!given)
    die("no memory");
  char *const ids[] = {given, empty, global, dotted, other, huge};
  for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
    for (uint64_t revision = 0; revision < 5; revision++) {
      Node__Call c = NODE__CALL__INIT;
      Node__GetSecrets get = NODE__GET_SECRETS__INIT;
      get.instance = ids[i];
      if (revision) /* the real one is 1 */
        PB_SET(&get, revision, revision == 1 && i == 0 ? UINT64_MAX : revision);
      c.body_case = NODE__CALL__BODY_GET_SECRETS;
      c.get_secrets = &get;
      call(&c.base);
    }
  free(given);
  free(huge);
  listen_for(at.socket, 1500);
}

static void send_status(Model__InstanceStatus *status) {
  Node__Call c = NODE__CALL__INIT;
  Node__StatusReport report = NODE__STATUS_REPORT__INIT;
  Model__InstanceStatus *list[] = {status};
  report.instances = list;
  report.n_instances = 1;
  c.body_case = NODE__CALL__BODY_STATUS;
  c.status = &report;
  call(&c.base);
}

/* From now on we are the node's agent. */
static void be_the_agent(void) {
  Node__Call c = NODE__CALL__INIT;
  Node__AgentHello hello = NODE__AGENT_HELLO__INIT;
  c.body_case = NODE__CALL__BODY_AGENT_HELLO;
  c.agent_hello = &hello;
  call_with(&c.base, 0, 64);
}

static void attack_status(const char *instance) {
  char project[64], service[64], control[] = "\x01\x1b]0;owned\x07\r\nlevel=error msg=\"forged\"", nowhere[] = "256.1.2.3; rm -rf /", other[] = "n2";
  char *huge = text_of('A', 1u << 20), dotted[] = "../../tokens", empty[] = "";
  uint64_t number;
  if (!instance_id_parse(instance, project, service, &number))
    die("not an instance");
  const uint64_t numbers[] = {0, number, number + 1, UINT32_MAX, UINT64_MAX};
  char *const names[] = {empty, dotted, control, huge, service};
  for (size_t p = 0; p < 5; p++)
    for (size_t n = 0; n < 5; n++)
      for (uint64_t epoch = 0; epoch < 4; epoch++) {
        Model__InstanceStatus s = MODEL__INSTANCE_STATUS__INIT;
        s.project = project;
        s.service = names[p];
        s.node = other;
        s.reason = control;
        s.address = nowhere;
        PB_SET(&s, number, numbers[n]);
        PB_SET(&s, epoch, epoch == 3 ? UINT64_MAX : epoch);
        PB_SET(&s, phase, (Model__Phase)4711);
        PB_SET(&s, ready, 1);
        PB_SET(&s, drained, 1);
        PB_SET(&s, exit_code, INT32_MIN);
        PB_SET(&s, restarts, UINT32_MAX);
        PB_SET(&s, since_ms, INT64_MIN);
        PB_SET(&s, started_ms, INT64_MAX);
        if (n == 0 && epoch == 0)
          be_the_agent(); /* the real one comes back all the time */
        if (p != 3 || n == 1)
          send_status(&s);
        listen_for(at.socket, 0);
      }
  /* The right one, with texts that nobody would read. */
  Model__InstanceStatus s = MODEL__INSTANCE_STATUS__INIT;
  s.project = project;
  s.service = service;
  s.reason = s.progress = s.container_id = huge;
  PB_SET(&s, number, number);
  PB_SET(&s, epoch, 1);
  PB_SET(&s, started_ms, INT64_MIN);
  for (int i = 0; i < 20; i++) {
    be_the_agent();
    s.reason[0]++;
    send_status(&s);
    listen_for(at.socket, 50);
  }
  /* And its node, its images, what it says is gone. */
  Node__Call c = NODE__CALL__INIT;
  Node__StatusReport report = NODE__STATUS_REPORT__INIT;
  Model__NodeStatus node = MODEL__NODE_STATUS__INIT;
  Node__ImageResolved image = NODE__IMAGE_RESOLVED__INIT, *images[] = {&image};
  Node__Usage usage = NODE__USAGE__INIT, *usages[] = {&usage};
  char *gone[] = {control, dotted, huge, empty};
  char *volumes[2000];
  for (size_t i = 0; i < 2000; i++)
    volumes[i] = dotted;
  c.body_case = NODE__CALL__BODY_STATUS;
  c.status = &report;
  node.name = other;
  node.docker_error = node.version = node.kernel = huge;
  node.reason = control;
  node.volumes = volumes;
  node.n_volumes = 2000;
  PB_SET(&node, cpu_milli, UINT32_MAX);
  PB_SET(&node, memory, UINT64_MAX);
  PB_SET(&node, docker_ok, 1);
  report.node = &node;
  report.gone = gone;
  report.n_gone = 4;
  image.project = project;
  image.service = service;
  image.image = huge;
  PB_SET(&image, revision, 1);
  report.images = images;
  report.n_images = 1;
  usage.instance = huge;
  PB_SET(&usage, memory, UINT64_MAX);
  report.usage = usages;
  report.n_usage = 1;
  PB_SET(&report, cpu_ns, UINT64_MAX);
  for (int i = 0; i < 20; i++) {
    huge[1]++;
    be_the_agent();
    call(&c.base);
    listen_for(at.socket, 50);
  }
  free(huge);
  listen_for(at.socket, 1000);
}

static void attack_events(int n) {
  char *text = text_of('E', 100000), kind[] = "instance.started", control[] = "\x07\n";
  Model__Event event = MODEL__EVENT__INIT, *events[60];
  event.kind = kind;
  event.message = text;
  event.actor = control;
  PB_SET(&event, ms, INT64_MAX);
  for (size_t i = 0; i < 60; i++)
    events[i] = &event;
  Node__Call c = NODE__CALL__INIT;
  Node__StatusReport report = NODE__STATUS_REPORT__INIT;
  report.events = events;
  report.n_events = 60;
  c.body_case = NODE__CALL__BODY_STATUS;
  c.status = &report;
  for (int i = 0; i < n; i++) {
    if (i % 20 == 0)
      be_the_agent();
    call(&c.base);
    listen_for(at.socket, 0);
  }
  free(text);
  listen_for(at.socket, 3000);
}

/* ---- the store ---- */

static ProtobufCBinaryData bytes(const char *text, size_t len) {
  return (ProtobufCBinaryData){len, (uint8_t *)(uintptr_t)text};
}

static void put_key(const char *key, size_t key_len, const char *value, size_t len) {
  Store__Call c = STORE__CALL__INIT;
  Store__TxnRequest txn = STORE__TXN_REQUEST__INIT;
  Store__Put put = STORE__PUT__INIT;
  Store__Op op = STORE__OP__INIT, *ops[] = {&op};
  put.has_key = put.has_value = 1;
  put.key = bytes(key, key_len);
  put.value = bytes(value, len);
  op.op_case = STORE__OP__OP_PUT;
  op.put = &put;
  txn.success = ops;
  txn.n_success = 1;
  c.body_case = STORE__CALL__BODY_TXN;
  c.txn = &txn;
  call(&c.base);
}

static void delete_keys(const char *from, const char *to, size_t to_len) {
  Store__Call c = STORE__CALL__INIT;
  Store__TxnRequest txn = STORE__TXN_REQUEST__INIT;
  Store__DeleteRange del = STORE__DELETE_RANGE__INIT;
  Store__Op op = STORE__OP__INIT, *ops[] = {&op};
  del.has_key = del.has_range_end = 1;
  del.key = bytes(from, strlen(from));
  del.range_end = bytes(to, to_len);
  op.op_case = STORE__OP__OP_DELETE_RANGE;
  op.delete_range = &del;
  txn.success = ops;
  txn.n_success = 1;
  c.body_case = STORE__CALL__BODY_TXN;
  c.txn = &txn;
  call(&c.base);
}

static void read_keys(const char *from, const char *to, size_t to_len, uint64_t revision, uint64_t limit) {
  Store__Call c = STORE__CALL__INIT;
  Store__RangeRequest range = STORE__RANGE_REQUEST__INIT;
  range.has_key = range.has_range_end = 1;
  range.key = bytes(from, strlen(from));
  range.range_end = bytes(to, to_len);
  PB_SET(&range, revision, revision);
  PB_SET(&range, limit, limit);
  c.body_case = STORE__CALL__BODY_RANGE;
  c.range = &range;
  call(&c.base);
}

static void grant_lease(uint64_t ttl, uint64_t id) {
  Store__Call c = STORE__CALL__INIT;
  Store__LeaseGrant grant = STORE__LEASE_GRANT__INIT;
  PB_SET(&grant, ttl_ms, ttl);
  PB_SET(&grant, id, id);
  c.body_case = STORE__CALL__BODY_LEASE_GRANT;
  c.lease_grant = &grant;
  call(&c.base);
}

static void attack_store(void) {
  char *huge = text_of('k', 7u << 20);
  static const char *const keys[] = {"/services/shop/evil",
                                     "/revisions/shop/evil/0000000001",
                                     "/tokens/evil",
                                     "/cluster",
                                     "/nodes/evil",
                                     "/node-status/n1",
                                     "/instances/shop/evil/0000000001",
                                     "/instance-status/shop/evil/0000000001",
                                     "/rollouts/shop/evil",
                                     "/leader/scheduler",
                                     "/history/apiserver/evil",
                                     "/history/scheduler/evil",
                                     "/secrets/evil",
                                     "/files/evil",
                                     "nowhere",
                                     "\x01",
                                     "/services"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    put_key(keys[i], strlen(keys[i]), "evil", 4);
    read_keys(keys[i], "", 0, 0, 0);
    read_keys(keys[i], "", 1, 0, 0); /* to the end of everything */
    delete_keys(keys[i], "", 1);
  }
  read_keys("", "", 1, 0, 0);
  read_keys("/", "0", 1, UINT64_MAX, 0);
  read_keys("/services/", "/", 1, 0, UINT64_MAX);
  put_key("/services/shop/\0evil", 20, "v", 1);
  put_key("", 0, "v", 1);
  put_key(huge, 1u << 20, "v", 1);
  put_key("/services/shop/huge", 19, huge, 7u << 20);
  Store__Call c = STORE__CALL__INIT;
  Store__Compact compact = STORE__COMPACT__INIT;
  PB_SET(&compact, revision, UINT64_MAX);
  c.body_case = STORE__CALL__BODY_COMPACT;
  c.compact = &compact;
  call(&c.base);
  Store__Snapshot snapshot = STORE__SNAPSHOT__INIT;
  c.body_case = STORE__CALL__BODY_SNAPSHOT;
  c.snapshot = &snapshot;
  call_with(&c.base, 0, 64);
  Store__LeaseRevoke revoke = STORE__LEASE_REVOKE__INIT;
  PB_SET(&revoke, id, UINT64_MAX);
  c.body_case = STORE__CALL__BODY_LEASE_REVOKE;
  c.lease_revoke = &revoke;
  call(&c.base);
  Store__LeaseKeepAlive alive = STORE__LEASE_KEEP_ALIVE__INIT;
  PB_SET(&alive, id, UINT64_MAX);
  c.body_case = STORE__CALL__BODY_LEASE_KEEP_ALIVE;
  c.lease_keep_alive = &alive;
  call(&c.base);
  Store__LeaseList list = STORE__LEASE_LIST__INIT;
  c.body_case = STORE__CALL__BODY_LEASE_LIST;
  c.lease_list = &list;
  call(&c.base);
  grant_lease(0, 0);
  grant_lease(UINT64_MAX, UINT64_MAX);
  grant_lease(1, 0);
  listen_for(at.socket, 1500);
  free(huge);
}

static void attack_leases(int n) {
  for (int i = 0; i < n; i++) {
    grant_lease(1000, 0);
    listen_for(at.socket, 0);
  }
  listen_for(at.socket, 2000);
}

/* ---- the agent's own socket ---- */

static void attack_ipc(const char *instance) {
  char control[] = "\x1b[2J\r\nlevel=error", *huge = text_of('v', 1u << 20), id[INSTANCE_ID_MAX], sh[] = "/bin/sh", option[] = "-c", command[] = "id";
  snprintf(id, sizeof id, "%s", instance);
  Keeper__Call c = KEEPER__CALL__INIT;
  Keeper__Exec exec = KEEPER__EXEC__INIT;
  char *argv[] = {sh, option, command}, *many[2000];
  for (size_t i = 0; i < 2000; i++)
    many[i] = command;
  char *const ids[] = {id, control, huge}, *const containers[] = {control, huge, sh};
  c.body_case = KEEPER__CALL__BODY_EXEC;
  c.exec = &exec;
  PB_SET(&exec, timeout_ms, UINT32_MAX);
  for (size_t i = 0; i < 3; i++)
    for (size_t k = 0; k < 3; k++) {
      exec.instance = ids[i];
      exec.container_id = containers[k];
      exec.argv = k ? argv : many;
      exec.n_argv = k ? 3 : 2000;
      call(&c.base);
    }
  Keeper__Verdict verdict = KEEPER__VERDICT__INIT, *list[1000];
  Keeper__Verdicts verdicts = KEEPER__VERDICTS__INIT;
  for (size_t i = 0; i < 1000; i++)
    list[i] = &verdict;
  verdict.instance = id;
  verdict.container_id = control;
  verdict.reason = huge;
  PB_SET(&verdict, live, 0);
  PB_SET(&verdict, started_ms, INT64_MIN);
  verdicts.verdicts = list;
  verdicts.n_verdicts = 3;
  c.body_case = KEEPER__CALL__BODY_VERDICTS;
  c.verdicts = &verdicts;
  call(&c.base);
  verdict.reason = control;
  verdicts.n_verdicts = 1000;
  for (int i = 0; i < 20; i++)
    call(&c.base);
  Keeper__Hello hello = KEEPER__HELLO__INIT;
  c.body_case = KEEPER__CALL__BODY_HELLO;
  c.hello = &hello;
  for (int i = 0; i < 100; i++)
    call_with(&c.base, 0, 64);
  listen_for(at.socket, 1500);
  free(huge);
}

/* ---- */

static void read_public(const char *dir, const char *name, char out[BUS_KEY_LEN + 1]) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s.pub", dir, name);
  FILE *f = fopen(path, "re");
  if (!f || fread(out, 1, BUS_KEY_LEN, f) != BUS_KEY_LEN)
    die("no such public key");
  fclose(f);
  out[BUS_KEY_LEN] = 0;
}

static bool run(const char *server, const char *attack, const char *arg) {
  int n = arg ? atoi(arg) : 1000;
  if (strcmp(attack, "ping") == 0)
    listen_for(at.socket, 300);
  else if (strcmp(attack, "frames") == 0)
    attack_frames();
  else if (strcmp(attack, "bodies") == 0)
    attack_bodies();
  else if (strcmp(attack, "bomb") == 0)
    attack_bomb();
  else if (strcmp(attack, "large") == 0)
    attack_large();
  else if (strcmp(attack, "flood") == 0 || strcmp(attack, "streams") == 0)
    attack_flood(server, n, attack[0] == 's');
  else if (strcmp(attack, "hellos") == 0)
    attack_hellos(server, n);
  else if (strcmp(attack, "node") == 0)
    attack_node();
  else if (strcmp(attack, "secrets") == 0 && arg)
    attack_secrets(arg);
  else if (strcmp(attack, "status") == 0 && arg)
    attack_status(arg);
  else if (strcmp(attack, "events") == 0)
    attack_events(n);
  else if (strcmp(attack, "store") == 0)
    attack_store();
  else if (strcmp(attack, "leases") == 0)
    attack_leases(n);
  else if (strcmp(attack, "ipc") == 0 && arg)
    attack_ipc(arg);
  else
    return false;
  return true;
}

int main(int argc, char **argv) {
  struct err err;
  if (argc < 6 || argc > 7) {
    fputs("usage: bus-attack KEY_DIR ROLE ENDPOINT SERVER ATTACK [ARGUMENT]\n", stderr);
    return 2;
  }
  bool stranger = strcmp(argv[2], "stranger") == 0;
  if ((stranger ? bus_key_new(&at.own, &err) : bus_key_load(argv[1], argv[2], &at.own, &err)) < 0)
    die(err.msg);
  at.endpoint = argv[3];
  read_public(argv[1], argv[4], at.server);
  at.zmq = zmq_ctx_new();
  bool heard = open_talk();
  if (!run(argv[4], argv[5], argc > 6 ? argv[6] : NULL))
    die("no such attack");
  zmq_close(at.socket);
  zmq_ctx_term(at.zmq);
  json_t *errors = json_object();
  for (int i = 0; i < ERR_CODE_COUNT; i++)
    if (at.codes[i])
      json_object_set_new(errors, err_code_text((enum err_code)i), json_integer((json_int_t)at.codes[i]));
  json_t *told = json_pack("{s:b, s:i, s:i, s:i, s:i, s:i, s:o}", "heard", heard, "sent", (int)at.sent, "unsent", (int)at.unsent, "replies",
                           (int)at.replies, "items", (int)at.items, "refused", (int)at.refused, "errors", errors);
  char *text = json_dumps(told, JSON_COMPACT);
  puts(text ? text : "{}");
  free(text);
  json_decref(told);
  return 0;
}
