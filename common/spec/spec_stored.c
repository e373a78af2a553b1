/* What comes out of a store or from a master, judged once more as if somebody had just written it: whoever could put it there past the API gets
 * no further with it than with the API. */
#include "common/spec/spec.h"

#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/cron/zone.h"
#include "common/spec/spec_set.h"

/* Fields that only a newer version knows: what they ask for does not happen here, so they cannot be judged, nor need be. */
static void forget_unknown(ProtobufCMessage *msg) {
  for (unsigned i = 0; i < msg->n_unknown_fields; i++)
    free(msg->unknown_fields[i].data);
  free(msg->unknown_fields);
  msg->unknown_fields = NULL;
  msg->n_unknown_fields = 0;
  for (unsigned i = 0; i < msg->descriptor->n_fields; i++) {
    const ProtobufCFieldDescriptor *fd = &msg->descriptor->fields[i];
    if (fd->type != PROTOBUF_C_TYPE_MESSAGE || !spec_field_present(msg, fd))
      continue;
    void *at = spec_field(msg, fd);
    bool list = fd->label == PROTOBUF_C_LABEL_REPEATED;
    ProtobufCMessage **each = list ? *(ProtobufCMessage ***)at : (ProtobufCMessage **)at;
    size_t count = list ? *(size_t *)((char *)msg + fd->quantifier_offset) : 1;
    for (size_t n = 0; n < count; n++)
      forget_unknown(each[n]);
  }
}

static bool is_port(uint32_t port) {
  return port >= 1 && port <= 65535;
}

/* A task has ports, which a [[job]] cannot say; and its zone is the scheduler's to know: here it need only be a name. */
static const char *take_out_of_job(Model__ServiceSpec *spec) {
  for (size_t i = 0; i < spec->n_extra_ports; i++)
    if (!is_port(PB_GET(spec->extra_ports[i], host_port, 0)) || !is_port(PB_GET(spec->extra_ports[i], container_port, 0)))
      return "extra_ports: ports must be between 1 and 65535";
  for (size_t i = 0; i < spec->n_extra_ports; i++)
    model__port_map__free_unpacked(spec->extra_ports[i], NULL);
  spec->n_extra_ports = 0;
  if (spec->job->tz && !zone_name_valid(spec->job->tz))
    return "tz: must be a time zone's name, like \"Europe/Berlin\"";
  free(spec->job->tz);
  spec->job->tz = NULL;
  return NULL;
}

static size_t field_size(const ProtobufCFieldDescriptor *fd) {
  if (fd->label == PROTOBUF_C_LABEL_REPEATED || fd->type == PROTOBUF_C_TYPE_STRING || fd->type == PROTOBUF_C_TYPE_MESSAGE)
    return sizeof(void *);
  return fd->type == PROTOBUF_C_TYPE_UINT64 ? sizeof(uint64_t) : fd->type == PROTOBUF_C_TYPE_ENUM ? sizeof(int) : sizeof(uint32_t);
}

static Model__ServiceSpec only_field(const Model__ServiceSpec *spec, const ProtobufCFieldDescriptor *fd) {
  Model__ServiceSpec one = MODEL__SERVICE_SPEC__INIT;
  memcpy((char *)&one + fd->offset, (const char *)spec + fd->offset, field_size(fd));
  if (fd->quantifier_offset)
    memcpy((char *)&one + fd->quantifier_offset, (const char *)spec + fd->quantifier_offset,
           fd->label == PROTOBUF_C_LABEL_REPEATED ? sizeof(size_t) : sizeof(protobuf_c_boolean));
  return one;
}

static const char *first_difference(const Model__ServiceSpec *a, const Model__ServiceSpec *b) {
  for (unsigned i = 0; i < a->base.descriptor->n_fields; i++) {
    Model__ServiceSpec x = only_field(a, &a->base.descriptor->fields[i]), y = only_field(b, &a->base.descriptor->fields[i]);
    if (!pb_equal(&x.base, &y.base))
      return a->base.descriptor->fields[i].name;
  }
  return "spec";
}

/* Written down and read again: faults are those of the one reader, and what does not come back as it was is what nobody could have written (a
 * key twice, a service's key of a job). */
static int read_again(const Model__ServiceSpec *spec, struct err *err) {
  struct spec_faults faults = {0};
  struct spec_reader r = {.faults = &faults, .path = BUF_INIT(1024), .resolved = true};
  const struct spec_table *table = spec_table_of(spec);
  struct toml_doc *doc = toml_doc_new();
  struct toml_value *tree = doc ? spec_write_table(doc, table, &spec->base) : NULL;
  Model__ServiceSpec *copy = tree ? (Model__ServiceSpec *)spec_message_new(table->desc) : NULL;
  int rc = -1;
  if (copy)
    spec_read_table(&r, table, tree, copy);
  if (!copy || r.memory)
    err_set(err, ERR_MEMORY, "no memory to check a spec");
  else if (faults.count)
    err_set(err, ERR_UNPROCESSABLE, "%s: %s", faults.list[0].path, faults.list[0].message);
  else if (!pb_equal(&spec->base, &copy->base))
    err_set(err, ERR_UNPROCESSABLE, "%s: holds what cannot be written in a service.toml", first_difference(spec, copy));
  else
    rc = 0;
  if (copy)
    model__service_spec__free_unpacked(copy, NULL);
  toml_free(doc);
  buf_free(&r.path);
  spec_faults_free(&faults);
  return rc;
}

int spec_check_stored(const Model__ServiceSpec *spec, struct err *err) {
  Model__ServiceSpec *copy = (Model__ServiceSpec *)pb_clone(&spec->base);
  if (!copy)
    return err_set(err, ERR_MEMORY, "no memory to check a spec");
  forget_unknown(&copy->base);
  const char *wrong = copy->job ? take_out_of_job(copy) : NULL;
  int rc = wrong ? err_set(err, ERR_UNPROCESSABLE, "%s", wrong) : read_again(copy, err);
  model__service_spec__free_unpacked(copy, NULL);
  return rc;
}

int spec_check_all(const Model__ServiceSpec *spec, const Model__ClusterSpec *cluster, struct err *err) {
  return spec_check_stored(spec, err) < 0 ? -1 : spec_check_policy(spec, cluster, err);
}
