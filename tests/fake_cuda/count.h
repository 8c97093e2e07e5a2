/* Counting calls. All fake libraries share the counters and the memory of the fake libcudart. */
#include <stddef.h>

int fake_cuda_counter(const char *name);
void fake_cuda_count(int counter);
void fake_cuda_memory(long *now, long *peak);
size_t fake_cuda_device_bytes(void);
#define COUNT                                                        \
    do {                                                             \
        static int counter = -1;                                     \
        if (counter < 0) counter = fake_cuda_counter(__func__);      \
        fake_cuda_count(counter);                                    \
    } while (0)
