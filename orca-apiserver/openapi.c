#include "orca-apiserver/openapi.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/daemon/daemon.h"
#include "common/spec/spec.h"
#include "orca-apiserver/routes.h"

#define STR "{\"type\":\"string\"}"
#define INT "{\"type\":\"integer\"}"
#define NUM "{\"type\":\"number\"}"
#define NUM_NULL "{\"type\":[\"number\",\"null\"]}"
#define INT_NULL "{\"type\":[\"integer\",\"null\"]}"
#define BOOL "{\"type\":\"boolean\"}"
#define TIME "{\"type\":[\"string\",\"null\"],\"format\":\"date-time\"}"
#define LIST(of) "{\"type\":\"array\",\"items\":" of "}"
#define REF(name) "{\"$ref\":\"#/components/schemas/" name "\"}"
#define OBJECT(fields) "{\"type\":\"object\",\"properties\":{" fields "}}"
#define F(name, type) "\"" name "\":" type

/* clang-format off */
static const struct { const char *name, *json; } schemas[] = {
  {"Error", OBJECT(F("error", STR) "," F("code", STR) "," F("details", LIST(OBJECT(F("path", STR) "," F("message", STR)))))},
  {"Health", OBJECT(F("status", "{\"type\":\"string\",\"enum\":[\"ok\",\"unavailable\"]}") "," F("version", STR) "," F("error", STR))},
  {"Document", "{\"type\":\"object\"}"},
  {"Deploy", OBJECT(F("services", LIST(REF("ServiceSpec"))) "," F("jobs", LIST(REF("JobSpec"))) "," F("cluster", REF("ClusterSpec")) ","
      F("files", "{\"type\":\"object\",\"additionalProperties\":{\"type\":\"string\",\"contentEncoding\":\"base64\"}}"))},
  {"Plan", OBJECT(F("deployed", LIST(STR)) "," F("unchanged", LIST(STR)) "," F("removed", LIST(STR)) "," F("errors", LIST(STR)) "," F("warnings", LIST(STR)) "," F("dry_run", BOOL) ","
      F("cluster_changed", BOOL) ","
      F("changes", LIST(OBJECT(F("service", STR) "," F("job", BOOL) "," F("runs", BOOL) "," F("action", "{\"type\":\"string\",\"enum\":[\"create\",\"update\",\"retry\",\"scale\",\"start\",\"remove\"]}") ","
        F("revision", INT) "," F("replicas", INT) "," F("stop_first", BOOL) "," F("diff", STR)))) ","
      F("steps", "{\"type\":[\"array\",\"null\"],\"items\":" OBJECT(F("action", "{\"type\":\"string\",\"enum\":[\"create\",\"stop\",\"move\",\"wait\",\"blocked\",\"more\"]}") ","
        F("instance", STR) "," F("node", STR) "," F("from", STR) "," F("reason", STR) "," F("revision", INT) "," F("verdicts", LIST(REF("Verdict")))) "}") ","
      F("steps_missing", STR))},
  {"Verdict", OBJECT(F("node", STR) "," F("chosen", BOOL) "," F("fits", BOOL) "," F("reason", STR))},
  {"Service", OBJECT(F("project", STR) "," F("name", STR) ","
      F("status", "{\"type\":\"string\",\"enum\":[\"running\",\"deploying\",\"pending\",\"degraded\",\"crashing\",\"failed\",\"rolling_back\",\"rolled_back\",\"stopping\",\"stopped\"]}") ","
      F("replicas", INT) "," F("running_replicas", INT) "," F("ready_replicas", INT) "," F("image", STR) "," F("domain", STR) "," F("revision", INT) ","
      F("nodes", LIST(STR)) "," F("cpu", NUM) "," F("memory", INT) "," F("last_error", STR) "," F("secrets_newer", BOOL))},
  {"Status", OBJECT(F("services", LIST(REF("Service"))) "," F("jobs", LIST(REF("Job"))) "," F("problems", LIST(STR)) "," F("well", BOOL) "," F("summary", STR) "," F("reasons", LIST(STR)))},
  {"Revision", OBJECT(F("number", INT) "," F("created", TIME) "," F("created_by", STR) "," F("image", STR) "," F("resolved", STR) "," F("current", BOOL) ","
      F("stable", BOOL) "," F("state", STR) "," F("changes", STR))},
  {"History", OBJECT(F("revisions", LIST(REF("Revision"))))},
  {"Instance", OBJECT(F("id", STR) "," F("state", STR) "," F("ready", BOOL) "," F("reason", STR) "," F("restarts", INT) ","
      F("exit_code", "{\"type\":[\"integer\",\"null\"]}") "," F("oom_killed", BOOL) "," F("node", STR) "," F("address", STR) "," F("container_id", STR) ","
      F("revision", INT) "," F("epoch", INT) "," F("created", TIME) "," F("started", TIME) "," F("next_try", TIME) "," F("progress", STR) ","
      F("cpu", NUM) "," F("memory", INT))},
  {"ServiceDetail", OBJECT(F("service", REF("Service")) "," F("spec", REF("ServiceSpec")) "," F("revisions", LIST(REF("Revision"))) ","
      F("instances", LIST(REF("Instance"))) ","
      F("rollout", "{\"type\":[\"object\",\"null\"],\"properties\":{" F("state", STR) "," F("revision", INT) "," F("stable_revision", INT) "," F("phase", STR) ","
        F("reason", STR) "," F("started", TIME) "," F("updated", TIME) "}}"))},
  {"Explanation", OBJECT(F("service", STR) "," F("status", STR) "," F("replicas", INT) "," F("ready_replicas", INT) "," F("last_error", STR) ","
      F("rollout", "{\"type\":[\"object\",\"null\"]}") "," F("depends_on", LIST(OBJECT(F("service", STR) "," F("satisfied", BOOL) "," F("reason", STR)))) ","
      F("route", "{\"type\":[\"object\",\"null\"],\"properties\":{" F("domains", LIST(STR)) "," F("paths", LIST(STR)) "," F("endpoints", INT) "," F("version", INT) ","
        F("proxies", LIST(OBJECT(F("node", STR) "," F("connected", BOOL) "," F("up_to_date", BOOL) "," F("fault", STR)))) "}}") "," F("no_route", STR) ","
      F("instances", LIST(OBJECT(F("id", STR) "," F("node", STR) "," F("state", STR) "," F("ready", BOOL) "," F("reason", STR) "," F("receives", BOOL) ","
        F("receives_not", STR) "," F("revision", INT) "," F("restarts", INT) "," F("since", TIME) "," F("next_try", TIME) "," F("progress", STR) ","
        F("last_end", "{\"type\":[\"object\",\"null\"],\"properties\":{" F("by", STR) "," F("time", TIME) "," F("exit_code", "{\"type\":[\"integer\",\"null\"]}") ","
          F("oom_killed", BOOL) "," F("lines", LIST(STR)) "}}") "," F("verdicts", LIST(REF("Verdict")))))))},
  {"Top", OBJECT(F("time", TIME) "," F("services", LIST(OBJECT(F("service", STR) "," F("instances", LIST(OBJECT(F("id", STR) "," F("node", STR) "," F("state", STR) ","
      F("cpu", NUM) "," F("cpu_limit", NUM) "," F("memory", INT) "," F("memory_limit", INT) "," F("pids", INT) "," F("net_rx_rate", INT_NULL) "," F("net_tx_rate", INT_NULL)))) ","
      F("cpu", NUM) "," F("cpu_limit", NUM) "," F("memory", INT) "," F("memory_limit", INT) "," F("net_rx_rate", INT_NULL) "," F("net_tx_rate", INT_NULL) ","
      F("requests_rate", NUM_NULL) "," F("errors_rate", NUM_NULL) "," F("errors_4xx_rate", NUM_NULL) "," F("p50_ms", NUM_NULL) "," F("p99_ms", NUM_NULL)))) ","
      F("nodes", LIST(OBJECT(F("name", STR) "," F("cpu", NUM) "," F("cpu_limit", NUM) "," F("memory", INT) "," F("memory_limit", INT)))))},
  {"Finding", OBJECT(F("check", STR) "," F("level", "{\"type\":\"string\",\"enum\":[\"well\",\"warning\",\"wrong\"]}") "," F("text", STR) "," F("advice", STR))},
  {"Doctor", OBJECT(F("master", STR) "," F("findings", LIST(REF("Finding"))) "," F("nodes", LIST(OBJECT(F("node", STR) "," F("findings", LIST(REF("Finding")))))) ","
      F("well", INT) "," F("warnings", INT) "," F("wrong", INT))},
  {"Scale", "{\"type\":\"object\",\"required\":[\"replicas\"],\"additionalProperties\":false,\"properties\":{\"replicas\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":10000}}}"},
  {"Done", OBJECT(F("service", STR) "," F("changed", BOOL) "," F("revision", INT) "," F("replicas", INT))},
  {"Stopped", OBJECT(F("stopped", LIST(STR)) "," F("removed", LIST(STR)))},
  {"Event", OBJECT(F("revision", INT) "," F("time", TIME) "," F("kind", STR) "," F("project", STR) "," F("service", STR) "," F("instance", STR) ","
      F("node", STR) "," F("message", STR) "," F("severity", STR) "," F("actor", STR))},
  {"Events", OBJECT(F("events", LIST(REF("Event"))) "," F("revision", INT) "," F("trimmed", BOOL) "," F("oldest", INT_NULL) "," F("oldest_time", TIME))},
  {"Cluster", OBJECT(F("id", STR) "," F("name", STR) "," F("domain", STR) "," F("version", STR) "," F("node", STR) "," F("started", TIME) ","
      F("masters", LIST(OBJECT(F("name", STR) "," F("address", STR)))) "," F("scheduler", "{\"type\":[\"object\",\"null\"]}") "," F("store", "{\"type\":\"object\"}") ","
      F("nodes", INT) "," F("services", INT) "," F("instances", INT))},
  {"Node", OBJECT(F("name", STR) "," F("address", STR) "," F("role", STR) ","
      F("state", "{\"type\":\"string\",\"enum\":[\"ready\",\"degraded\",\"draining\",\"unreachable\"]}") "," F("reason", STR) "," F("since", TIME) ","
      F("labels", "{\"type\":\"object\",\"additionalProperties\":" STR "}") "," F("capacity", OBJECT(F("cpu", NUM) "," F("memory", INT) "," F("pids", INT))) ","
      F("used", OBJECT(F("cpu", NUM) "," F("memory", INT))) "," F("instances", INT) "," F("version", STR) "," F("docker_version", STR) "," F("kernel", STR) ","
      F("arch", STR))},
  {"Secret", OBJECT(F("name", STR) "," F("project", "{\"type\":[\"string\",\"null\"]}") "," F("version", INT) "," F("updated", TIME) "," F("updated_by", STR) ","
      F("used_by", LIST(STR)))},
  {"Secrets", OBJECT(F("secrets", LIST(REF("Secret"))))},
  {"SecretValue", "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{\"value\":" STR ",\"value_base64\":{\"type\":\"string\",\"contentEncoding\":\"base64\"}}}"},
  {"SecretImport", "{\"type\":\"object\",\"additionalProperties\":false,\"required\":[\"secrets\"],\"properties\":{\"secrets\":{\"type\":\"object\",\"additionalProperties\":" STR "}}}"},
  {"SecretChange", OBJECT(F("changed", LIST(STR)) "," F("unchanged", LIST(STR)) "," F("project", "{\"type\":[\"string\",\"null\"]}"))},
  {"SecretRotation", OBJECT(F("resealed", INT) "," F("key_id", STR))},
  {"Run", OBJECT(F("job", STR) "," F("run", "{\"type\":[\"integer\",\"null\"]}") ","
      F("state", "{\"type\":\"string\",\"enum\":[\"pending\",\"running\",\"succeeded\",\"failed\",\"timed_out\",\"skipped\",\"stopped\",\"forgotten\"]}") ","
      F("revision", INT) "," F("by", STR) "," F("scheduled", TIME) "," F("started", TIME) "," F("ended", TIME) "," F("next_try", TIME) "," F("attempts", INT) ","
      F("exit_code", "{\"type\":[\"integer\",\"null\"]}") "," F("reason", STR) "," F("node", STR) "," F("instance", STR) "," F("log", STR))},
  {"Job", OBJECT(F("project", STR) "," F("name", STR) "," F("status", STR) "," F("image", STR) "," F("revision", INT) "," F("task", BOOL) "," F("stopped", BOOL) ","
      F("schedule", STR) "," F("tz", STR) "," F("overlap", STR) "," F("next", TIME) "," F("last_success", TIME) "," F("error", STR) "," F("running", INT) "," F("runs", LIST(REF("Run"))))},
  {"Jobs", OBJECT(F("jobs", LIST(REF("Job"))))},
  {"Tasks", OBJECT(F("tasks", LIST(REF("Job"))))},
  {"JobDetail", OBJECT(F("job", REF("Job")) "," F("spec", REF("JobSpec")) "," F("instances", LIST(REF("Instance"))))},
  {"JobExplanation", OBJECT(F("job", REF("Job")) "," F("last_run", INT) ","
      F("instances", LIST(OBJECT(F("id", STR) "," F("node", STR) "," F("state", STR) "," F("reason", STR) "," F("revision", INT) "," F("restarts", INT) ","
        F("since", TIME) "," F("next_try", TIME) "," F("progress", STR) "," F("last_end", "{\"type\":[\"object\",\"null\"]}") "," F("verdicts", LIST(REF("Verdict")))))))},
  {"JobDone", OBJECT(F("job", STR) "," F("changed", BOOL) "," F("revision", INT))},
  {"Task", "{\"type\":\"object\",\"required\":[\"image\"],\"additionalProperties\":false,\"properties\":{" F("image", STR) "," F("name", STR) "," F("project", STR) ","
      F("command", LIST(STR)) "," F("entrypoint", LIST(STR)) "," F("env", "{\"type\":\"object\",\"additionalProperties\":" STR "}") ","
      F("labels", "{\"type\":\"object\",\"additionalProperties\":" STR "}") "," F("memory", "{\"type\":[\"string\",\"integer\"]}") "," F("cpu", NUM) ","
      F("portBindings", "{\"type\":\"object\",\"additionalProperties\":{\"type\":[\"string\",\"integer\"]}}") ","
      F("nodeSelectors", "{\"type\":\"object\",\"additionalProperties\":" STR "}") ","
      F("restartPolicy", "{\"type\":\"string\",\"enum\":[\"no\",\"never\"]}") "," F("retries", INT) "," F("timeout", STR) "," F("user", STR) "," F("workdir", STR) "}}"},
  {"NewToken", "{\"type\":\"object\",\"required\":[\"name\",\"role\"],\"additionalProperties\":false,\"properties\":{\"name\":{\"type\":\"string\"},"
      "\"role\":{\"type\":\"string\",\"enum\":[\"admin\",\"deployer\",\"viewer\"]},\"projects\":{\"type\":\"array\",\"maxItems\":64,\"items\":" STR "},"
      "\"expires\":{\"type\":[\"string\",\"null\"]}}}"},
  {"Token", OBJECT(F("name", STR) "," F("role", "{\"type\":\"string\",\"enum\":[\"admin\",\"deployer\",\"viewer\"]}") "," F("projects", LIST(STR)) ","
      F("created", TIME) "," F("created_by", STR) "," F("expires", TIME) "," F("expired", BOOL) "," F("last_used", TIME) "," F("declared", BOOL) ","
      F("yours", BOOL))},
  {"Tokens", OBJECT(F("tokens", LIST(REF("Token"))))},
  {"OneToken", OBJECT(F("token", REF("Token")))},
  {"CreatedToken", OBJECT(F("value", STR) "," F("token", REF("Token")))},
  {"Removed", OBJECT(F("removed", STR))},
  {"AuditEntry", OBJECT(F("id", STR) "," F("revision", INT) "," F("time", TIME) "," F("actor", STR) "," F("from", STR) "," F("method", STR) "," F("path", STR) ","
      F("target", STR) "," F("project", STR) "," F("status", INT) "," F("result", STR) "," F("count", INT))},
  {"Audit", OBJECT(F("entries", LIST(REF("AuditEntry"))) "," F("revision", INT))},
  {"Nodes", OBJECT(F("nodes", LIST(REF("Node"))))},
};
/* clang-format on */

const char *api_openapi_schema(const char *name) {
  for (size_t i = 0; i < sizeof schemas / sizeof schemas[0]; i++)
    if (strcmp(schemas[i].name, name) == 0)
      return schemas[i].json;
  return NULL;
}

static const char *permission_text(enum api_permission permission) {
  switch (permission) {
  case API_PERM_OPEN:
    return "open";
  case API_PERM_METRICS:
    return "open on loopback, else view";
  case API_PERM_VIEW:
    return "view";
  case API_PERM_OPERATE:
    return "operate";
  case API_PERM_DEPLOY:
    return "deploy";
  case API_PERM_ADMIN:
    return "admin";
  case API_PERM_END:
    break;
  }
  return "";
}

static json_t *reference(const char *name) {
  char text[96];
  snprintf(text, sizeof text, "#/components/schemas/%s", name);
  return json_pack("{s:s}", "$ref", text);
}

static json_t *reply_content(const struct api_route *route) {
  if (strcmp(route->gives, "WebSocket") == 0) /* 101: nothing that a document of HTTP answers can say */
    return json_object();
  if (strcmp(route->gives, "text") == 0)
    return json_pack("{s:{s:{s:s}}}", "text/plain", "schema", "type", "string");
  json_t *content = json_pack("{s:{s:o}}", "application/json", "schema", reference(route->gives));
  if (content && (strstr(route->query, "wait:") || strstr(route->query, "follow:")))
    json_object_set_new(content, "text/event-stream", json_pack("{s:{s:s}}", "schema", "type", "string"));
  return content;
}

/* What is asked for and not done yet is 202; followed to its end (wait) it is 200. Where the connection becomes another protocol's, 101. */
static json_t *responses(const struct api_route *route) {
  bool later = strcmp(route->method, "POST") == 0 && strcmp(route->gives, "Run") == 0;
  json_t *all = json_pack("{s:{s:s,s:{s:{s:o}}}}", "default", "description", "an error", "content", "application/json", "schema", reference("Error"));
  json_t *done = json_pack("{s:s,s:o}", "description", later ? "asked for; with wait, ended" : "done", "content", reply_content(route));
  if (!all || !done) {
    json_decref(all);
    json_decref(done);
    return NULL;
  }
  json_object_set(all, strcmp(route->gives, "WebSocket") == 0 ? "101" : "200", done);
  if (later)
    json_object_set(all, "202", done);
  json_decref(done);
  return all;
}

static json_t *parameters(const struct api_route *route) {
  json_t *list = json_array();
  if (strchr(route->path, '{'))
    json_array_append_new(list, json_pack("{s:s,s:s,s:b,s:{s:s}}", "name", "name", "in", "path", "required", 1, "schema", "type", "string"));
  for (const char *p = route->query; *p;) {
    char name[32], type[16];
    int used = 0;
    if (sscanf(p, "%31[^:]:%15s%n", name, type, &used) != 2)
      break;
    json_array_append_new(list, json_pack("{s:s,s:s,s:{s:s}}", "name", name, "in", "query", "schema", "type", type));
    p += used;
    p += strspn(p, " ");
  }
  return list;
}

static json_t *operation(const struct api_route *route) {
  char id[96];
  size_t n = 0;
  for (const char *p = route->method; *p && n < sizeof id - 1; p++)
    id[n++] = (char)tolower((unsigned char)*p);
  for (const char *p = route->path; *p && n < sizeof id - 1; p++)
    id[n++] = isalnum((unsigned char)*p) ? *p : '_';
  id[n] = 0;
  json_t *op = json_pack("{s:s,s:s,s:s,s:o,s:o}", "operationId", id, "summary", route->summary, "x-permission", permission_text(route->permission),
                         "parameters", parameters(route), "responses", responses(route));
  if (op && route->takes)
    json_object_set_new(op, "requestBody",
                        json_pack("{s:b,s:{s:{s:o}}}", "required", 1, "content", "application/json", "schema", reference(route->takes)));
  if (op && route->permission == API_PERM_OPEN)
    json_object_set_new(op, "security", json_array());
  return op;
}

static json_t *paths(void) {
  json_t *all = json_object();
  for (size_t i = 0; i < api_route_count; i++) {
    char method[8];
    const char *m = api_routes[i].method;
    size_t n = 0;
    for (; m[n] && n < sizeof method - 1; n++)
      method[n] = (char)tolower((unsigned char)m[n]);
    method[n] = 0;
    json_t *path = json_object_get(all, api_routes[i].path);
    if (!path) {
      path = json_object();
      json_object_set_new(all, api_routes[i].path, path);
    }
    json_object_set_new(path, method, operation(&api_routes[i]));
  }
  return all;
}

json_t *api_openapi(void) {
  json_t *components = json_object();
  for (size_t i = 0; i < sizeof schemas / sizeof schemas[0]; i++)
    json_object_set_new(components, schemas[i].name, json_loads(schemas[i].json, 0, NULL));
  json_object_set_new(components, "ServiceSpec", spec_json_schema_service());
  json_object_set_new(components, "JobSpec", spec_json_schema_job());
  json_object_set_new(components, "ClusterSpec", spec_json_schema_cluster());
  return json_pack("{s:s,s:{s:s,s:s},s:[{s:[]}],s:o,s:{s:{s:{s:s,s:s}},s:o}}", "openapi", "3.1.0", "info", "title", "orca", "version", ORCA_VERSION,
                   "security", "token", "paths", paths(), "components", "securitySchemes", "token", "type", "http", "scheme", "bearer", "schemas",
                   components);
}

void api_get_openapi(struct api_request *r) {
  json_t *document = api_openapi();
  char *text = document ? json_dumps(document, JSON_COMPACT) : NULL;
  json_decref(document);
  if (!text) {
    api_fail_with(r, ERR_MEMORY, "no memory for the document");
    return;
  }
  buf_add_str(&r->out, text);
  free(text);
  api_reply_text(r, 200, "application/json");
}
