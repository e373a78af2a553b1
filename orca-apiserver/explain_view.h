/* Why a service is as it is: each instance with the verdicts of the placement that really ran, what ended its last run and when it is tried again,
 * whether requests reach it and why not; what it waits for; its route and how far each proxy has it.
 * Threads: pure functions of the cache and the route table. */
#ifndef ORCA_APISERVER_EXPLAIN_VIEW_H
#define ORCA_APISERVER_EXPLAIN_VIEW_H

#include "orca-apiserver/routes_derive.h"
#include "orca-apiserver/status_view.h"

#define API_WHY_MAX 400

/* table may be NULL: the gateway is not open yet. Fields are added to the open object. */
void api_explain_json(const struct api_cache *cache, const struct api_figures *figures, const struct api_route_table *table,
                      const Model__Service *service, struct api_json *json);
/* The same of a job: when it runs next, what runs and where, why what waits waits, how its last runs ended. */
void api_explain_job_json(const struct api_cache *cache, const Model__Job *job, struct api_json *json);
/* Verdicts and the last end of one instance, of a service or a job: fields of the open object. */
void api_explain_instance_fields(const Model__Instance *instance, const Model__InstanceStatus *status, struct api_json *json);

/* Whether new requests go to the instance; *why ("" when they do) says what keeps them away. */
bool api_explain_receives(const struct api_cache *cache, const struct api_route_table *table, const Model__Instance *instance, char why[API_WHY_MAX]);

/* The lines of an ended run as an array of strings: valid UTF-8 whatever came. */
void api_lines_json(struct api_json *json, const char *key, const ProtobufCBinaryData *lines);

#endif
