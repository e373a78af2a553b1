/* The OpenAPI 3.1 document, made from the route table and the table of keys. */
#ifndef ORCA_APISERVER_OPENAPI_H
#define ORCA_APISERVER_OPENAPI_H

#include <jansson.h>

json_t *api_openapi(void);                        /* NULL when memory ends */
const char *api_openapi_schema(const char *name); /* JSON text of a named schema; NULL when there is none */

#endif
