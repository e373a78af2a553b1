#include "common/bus/internal.h"

#include <errno.h>
#include <string.h>

/* ZAP (RFC 27, "1.0") is answered on the loop's thread: REP on inproc://zeromq.zap.01 of the bus's own context. The domain names the
 * listener. A refusal is a 400: libzmq's client then gives its connection up at once, and our connectors, which never let libzmq
 * reconnect, come again with a fresh socket, so a key that becomes known later needs no 300 and no handshake time-out. */

enum { ZAP_VERSION, ZAP_REQUEST, ZAP_DOMAIN, ZAP_ADDRESS, ZAP_ROUTING_ID, ZAP_MECHANISM, ZAP_CREDENTIALS, ZAP_PARTS };

static bool is_text(zmq_msg_t *msg, const char *text) {
  return zmq_msg_size(msg) == strlen(text) && memcmp(zmq_msg_data(msg), text, strlen(text)) == 0;
}

static void report_refusal(struct bus *bus, const char *key) {
  bus->counters.refused_unauthorized++;
  int64_t now = loop_now(bus->loop);
  struct bus_refusal *oldest = &bus->refusals[0];
  for (size_t i = 0; i < sizeof bus->refusals / sizeof *bus->refusals; i++) {
    struct bus_refusal *r = &bus->refusals[i];
    if (strcmp(r->key, key) == 0) {
      bus_report(bus, &r->at, key, "is not on the allow-list");
      return;
    }
    if (r->at < oldest->at)
      oldest = r;
  }
  if (oldest->key[0] && now - oldest->at < 60 * NS_PER_SEC)
    return; /* many strangers at once: those already named must do */
  memcpy(oldest->key, key, sizeof oldest->key);
  oldest->at = 0;
  bus_report(bus, &oldest->at, key, "is not on the allow-list");
}

static bool allowed(struct bus *bus, zmq_msg_t *parts, char key[BUS_KEY_LEN + 1]) {
  if (!is_text(&parts[ZAP_VERSION], "1.0") || !is_text(&parts[ZAP_MECHANISM], "CURVE") || zmq_msg_size(&parts[ZAP_CREDENTIALS]) != 32)
    return false;
  zmq_z85_encode(key, zmq_msg_data(&parts[ZAP_CREDENTIALS]), 32);
  char who[64] = "";
  uint64_t tag = 0;
  for (struct bus_listener *l = bus->listeners; l; l = l->next)
    if (is_text(&parts[ZAP_DOMAIN], l->domain)) {
      if (l->allow(l->arg, key, who, &tag))
        return true;
      break;
    }
  report_refusal(bus, key);
  return false;
}

static void answer(struct bus *bus, zmq_msg_t *request, bool ok, const char *key) {
  const struct {
    const void *data;
    size_t len;
  } parts[] = {{"1.0", 3},
               {zmq_msg_data(request), zmq_msg_size(request)},
               {ok ? "200" : "400", 3},
               {ok ? "OK" : "No access", ok ? 2 : 9},
               {key, ok ? BUS_KEY_LEN : 0},
               {"", 0}};
  const size_t count = sizeof parts / sizeof *parts;
  bus_touched(bus, &bus->zap);
  for (size_t i = 0; i < count; i++)
    if (zmq_send(bus->zap.zmq, parts[i].data, parts[i].len, ZMQ_DONTWAIT | (i + 1 < count ? ZMQ_SNDMORE : 0)) < 0)
      return; /* the handshake is gone */
}

bool bus_zap_pump(struct bus *bus) {
  if (!bus->zap.zmq)
    return false;
  bool worked = false;
  for (unsigned n = 0; n < BUS_BATCH && bus_socket_readable(&bus->zap); n++) {
    zmq_msg_t parts[ZAP_PARTS];
    unsigned count;
    if (bus_socket_receive(&bus->zap, parts, ZAP_PARTS, &count) < 0)
      break;
    worked = true;
    char key[BUS_KEY_LEN + 1] = "";
    bool ok = count == ZAP_PARTS && allowed(bus, parts, key);
    if (count > ZAP_REQUEST)
      answer(bus, &parts[ZAP_REQUEST], ok, key);
    for (unsigned i = 0; i < count && i < ZAP_PARTS; i++)
      zmq_msg_close(&parts[i]);
  }
  return worked;
}

int bus_zap_open(struct bus *bus, struct err *err) {
  if (bus->zap.zmq)
    return 0;
  if (bus_socket_open(bus, &bus->zap, ZMQ_REP, err) < 0)
    return -1;
  if (zmq_bind(bus->zap.zmq, "inproc://zeromq.zap.01") == 0)
    return 0;
  int code = zmq_errno();
  bus_socket_close(bus, &bus->zap, 0);
  return err_set(err, ERR_INTERNAL, "bind the ZAP handler: %s", zmq_strerror(code));
}
