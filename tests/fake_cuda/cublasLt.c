/* The one function of cuBLASLt whose answer ONNX Runtime reads: which algorithms there are. */
#include <string.h>

#include "count.h"

/* cublasLtMatmulHeuristicResult_t: an algorithm of 64 bytes, size_t of workspace, a status, … */
enum { RESULT_BYTES = 96 };

int cublasLtMatmulAlgoGetHeuristic(void *lt, void *operation, void *a, void *b, void *c, void *d,
                                   void *preference, int most, void *results, int *found) {
    COUNT;
    *found = most > 0;
    if (*found) memset(results, 0, RESULT_BYTES);
    return 0;
}
