/* NVIDIA's driver: what synfer-rt asks it about a GPU. The rest of it is stubs. */
#include <stdio.h>
#include <stdlib.h>

#include "count.h"

int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *version) { return *version = 13000, 0; }
int cuDeviceGetCount(int *count) { return *count = 1, 0; }
int cuDeviceGet(int *device, int number) { return *device = number, 0; }
int cuDeviceGetName(char *name, int most, int device) {
    return snprintf(name, most, "fake CUDA device"), 0;
}
int cuDeviceGetPCIBusId(char *bus, int most, int device) {
    return snprintf(bus, most, "0000:00:00.0"), 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    enum { CAPABILITY_MAJOR = 75, CAPABILITY_MINOR = 76 }; /* CUdevice_attribute */
    return *value = attribute == CAPABILITY_MAJOR ? 9 : attribute == CAPABILITY_MINOR ? 0 : 1, 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { return *bytes = fake_cuda_device_bytes(), 0; }
