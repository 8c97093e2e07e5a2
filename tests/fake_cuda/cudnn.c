/* cuDNN's graph API without a GPU: there is one engine for everything, and it does nothing.
 *
 * Numbers are those of cudnn_graph.h (cuDNN 9), which is in no small package.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "count.h"

enum { TYPE_INT64 = 3, TYPE_DESCRIPTOR = 15, TYPE_INT32 = 23 }; /* cudnnBackendAttributeType_t */
enum { ENGINECFG_KNOB_CHOICES = 302, ENGINE_KNOB_INFO = 1302 }; /* cudnnBackendAttributeName_t */

size_t cudnnGetVersion(void) { return 91500; }
const char *cudnnGetErrorString(int status) { return "fake cuDNN"; }
void cudnnGetLastErrorString(char *text, size_t most) { if (most) *text = 0; }

int cudnnBackendCreateDescriptor(int kind, void **descriptor) {
    return *descriptor = calloc(1, 16), 0;
}
int cudnnBackendDestroyDescriptor(void *descriptor) { free(descriptor); return 0; }
int cudnnBackendSetAttribute(void *d, int name, int type, int64_t count, const void *values) {
    return 0;
}
int cudnnBackendFinalize(void *descriptor) { return 0; }

/* A descriptor that is asked for, such as the configuration of an engine, is the one that the caller
 * brings. A number is 0: no workspace, no shared memory. Of notes and knobs there are none.
 */
int cudnnBackendGetAttribute(void *d, int name, int type, int64_t most, int64_t *count, void *values) {
    size_t bytes = type == TYPE_INT64 ? 8 : type == TYPE_INT32 ? 4 : 0;
    int knob = name == ENGINECFG_KNOB_CHOICES || name == ENGINE_KNOB_INFO;
    if (count) *count = !knob && (bytes || type == TYPE_DESCRIPTOR);
    if (most > 0 && bytes) memset(values, 0, bytes);
    return 0;
}
int cudnnBackendExecute(void *handle, void *plan, void *variant) { COUNT; return 0; }
