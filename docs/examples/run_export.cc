// Runs rollout-ROWS.mlirbc of an export with any PJRT plugin.
//
//   g++ -std=c++17 -I xla/pjrt/c run_export.cc -o run_export -ldl
//   ./run_export PLUGIN.so rollout-32.mlirbc 32 STATES TIMES < x0.bin > x.bin
//
// x0 is (32, STATES), x is (32, TIMES, STATES); float64, the last axis the fastest. A
// model with parameters or controls takes one buffer more for each, in the order of
// "inputs" in export.json.
#include <dlfcn.h>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>
#include "pjrt_c_api.h"

static const PJRT_Api* api;

static void check(PJRT_Error* error) {
  if (error == nullptr) return;
  PJRT_Error_Message_Args message{};
  message.struct_size = PJRT_Error_Message_Args_STRUCT_SIZE;
  message.error = error;
  api->PJRT_Error_Message(&message);
  std::fprintf(stderr, "%.*s\n", (int)message.message_size, message.message);
  std::exit(1);
}

static void await(PJRT_Event* event) {
  PJRT_Event_Await_Args args{};
  args.struct_size = PJRT_Event_Await_Args_STRUCT_SIZE;
  args.event = event;
  check(api->PJRT_Event_Await(&args));
}

int main(int count, char** words) {
  if (count != 6) return 2;
  void* plugin = dlopen(words[1], RTLD_NOW);
  if (plugin == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  api = ((const PJRT_Api* (*)())dlsym(plugin, "GetPjrtApi"))();
  PJRT_Plugin_Initialize_Args begin{};
  begin.struct_size = PJRT_Plugin_Initialize_Args_STRUCT_SIZE;
  check(api->PJRT_Plugin_Initialize(&begin));

  PJRT_Client_Create_Args create{};
  create.struct_size = PJRT_Client_Create_Args_STRUCT_SIZE;
  check(api->PJRT_Client_Create(&create));

  std::ifstream file(words[2], std::ios::binary);
  std::string module((std::istreambuf_iterator<char>(file)), {});
  // CompileOptionsProto{executable_build_options{num_replicas: 1, num_partitions: 1}}
  const char options[] = {0x1a, 0x04, 0x20, 0x01, 0x28, 0x01};
  PJRT_Program program{};
  program.struct_size = PJRT_Program_STRUCT_SIZE;
  program.code = module.data();
  program.code_size = module.size();
  program.format = "mlir";
  program.format_size = 4;
  PJRT_Client_Compile_Args compile{};
  compile.struct_size = PJRT_Client_Compile_Args_STRUCT_SIZE;
  compile.client = create.client;
  compile.program = &program;
  compile.compile_options = options;
  compile.compile_options_size = sizeof options;
  check(api->PJRT_Client_Compile(&compile));

  PJRT_Client_AddressableDevices_Args devices{};
  devices.struct_size = PJRT_Client_AddressableDevices_Args_STRUCT_SIZE;
  devices.client = create.client;
  check(api->PJRT_Client_AddressableDevices(&devices));

  int64_t shape[] = {std::atoll(words[3]), std::atoll(words[4])};
  std::vector<double> x0(shape[0] * shape[1]);
  if (std::fread(x0.data(), 8, x0.size(), stdin) != x0.size()) return 1;
  PJRT_Client_BufferFromHostBuffer_Args put{};
  put.struct_size = PJRT_Client_BufferFromHostBuffer_Args_STRUCT_SIZE;
  put.client = create.client;
  put.data = x0.data();
  put.type = PJRT_Buffer_Type_F64;
  put.dims = shape;
  put.num_dims = 2;
  put.host_buffer_semantics = PJRT_HostBufferSemantics_kImmutableOnlyDuringCall;
  put.device = devices.addressable_devices[0];
  check(api->PJRT_Client_BufferFromHostBuffer(&put));
  await(put.done_with_host_buffer);

  PJRT_Buffer* inputs[] = {put.buffer};
  PJRT_Buffer* const* input_lists[] = {inputs};
  PJRT_Buffer* outputs[1];
  PJRT_Buffer** output_lists[] = {outputs};
  PJRT_ExecuteOptions how{};
  how.struct_size = PJRT_ExecuteOptions_STRUCT_SIZE;
  PJRT_LoadedExecutable_Execute_Args execute{};
  execute.struct_size = PJRT_LoadedExecutable_Execute_Args_STRUCT_SIZE;
  execute.executable = compile.executable;
  execute.options = &how;
  execute.argument_lists = input_lists;
  execute.num_devices = 1;
  execute.num_args = 1;
  execute.output_lists = output_lists;
  check(api->PJRT_LoadedExecutable_Execute(&execute));

  std::vector<double> x(x0.size() * std::atoll(words[5]));
  PJRT_Buffer_ToHostBuffer_Args get{};
  get.struct_size = PJRT_Buffer_ToHostBuffer_Args_STRUCT_SIZE;
  get.src = outputs[0];
  get.dst = x.data();
  get.dst_size = x.size() * sizeof(double);
  check(api->PJRT_Buffer_ToHostBuffer(&get));
  await(get.event);
  std::fwrite(x.data(), 8, x.size(), stdout);
}
