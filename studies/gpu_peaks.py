import json, os, sys, time, traceback
sys.path.insert(0, "src")
import torch
print(torch.__version__, torch.cuda.get_device_name(), flush=True)
try:
    import transformers, peft; print("transformers", transformers.__version__, "peft", peft.__version__, flush=True)
except Exception as e: print("no libs", e)
import types
for missing in ("bitsandbytes",):
    try: __import__(missing); print(missing, sys.modules[missing].__version__)
    except Exception as e: print(missing, "missing", e); 
if "bitsandbytes" not in sys.modules:
    import importlib.machinery
    stub = types.ModuleType("bitsandbytes"); stub.__spec__ = importlib.machinery.ModuleSpec("bitsandbytes", None)
    stub.nn = types.ModuleType("bitsandbytes.nn"); stub.functional = types.ModuleType("bitsandbytes.functional"); stub.optim = types.ModuleType("bitsandbytes.optim")
    stub.nn.Linear4bit = stub.nn.Params4bit = type("Linear4bit", (torch.nn.Module,), {}); stub.optim.AdamW8bit = object
    for n in ("", ".nn", ".functional", ".optim"): sys.modules["bitsandbytes" + n] = stub if not n else getattr(stub, n[1:])
import peftmemory
from peft import LoraConfig
from peftmemory.configs import load_config
from peftmemory.settings import read_setting
try:
    from peftmemory.tracing.build import build_model
    from peftmemory.tracing.gpu_only import build_optimizer
    from peftmemory.tracing.step import batch_of, forward
except Exception: traceback.print_exc()
rows = []
def case(model, method, name, batch, seq, **options):
    torch.cuda.empty_cache(); torch.cuda.reset_peak_memory_stats()
    row = {"model": model, "method": name, "batch": batch, "seq": seq, **options}
    try:
        config, setting = load_config(model), read_setting(batch=batch, seq=seq, **options)
        row["estimate"] = peftmemory.estimate(model, method, batch=batch, seq=seq, **options).peak
        torch.manual_seed(0)
        built = build_model(config, method, setting, device="cuda", quantise=None)
        trained = [p for p in built.parameters() if p.requires_grad]
        optimizer = build_optimizer(setting.optimizer, trained)
        inputs = {k: v.cuda() for k, v in batch_of(config, setting).items()}
        for step in range(2):
            torch.cuda.reset_peak_memory_stats(); t = time.time()
            outputs, loss = forward(built, inputs, setting)
            loss.backward(); del outputs, loss
            optimizer.step(); optimizer.zero_grad(set_to_none=True)
            torch.cuda.synchronize()
        row |= {"allocated": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved(), "step_s": round(time.time() - t, 3)}
        row["ratio"] = round(row["estimate"] / row["allocated"], 4)
        del built, optimizer, inputs, trained
    except Exception as e:
        row["error"] = f"{type(e).__name__}: {e}"[:300]; traceback.print_exc(limit=3)
    rows.append(row); print(json.dumps(row), flush=True)
    json.dump({"device": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": rows}, open(os.environ["OUT"] + "/gpu_peaks.json", "w"))
lora = peftmemory.method("lora", r=16, target_modules="all-linear")
qv = peftmemory.method("lora", r=8)
fused = {"optimizer": "adamw_torch_fused"}
for model in ("llama-3.2-1b", "qwen3-0.6b"):
    for method, name in (("full", "full"), (lora, "lora all r16"), ("ia3", "ia3"), ("houlsby", "houlsby"), ("ln", "ln")):
        case(model, method, name, 2, 1024, **fused, autocast=True)
        case(model, method, name, 2, 1024, **fused, autocast=True, checkpointing=True)
for seq in (512, 2048, 4096):
    case("llama-3.2-1b", "full", "full", 2, seq, **fused, checkpointing=True)
    case("llama-3.2-1b", "full", "full", 2, seq, optimizer="adamw_torch", checkpointing=True)
case("llama-3.2-1b", lora, "lora all r16", 2, 1024, **fused, autocast_adapter_dtype=False)
case("llama-3.2-1b", lora, "lora all r16", 2, 1024, **fused, loss="chunked", checkpointing=True)
case("llama-3.2-1b", lora, "lora all r16", 2, 1024, **fused, precision="fp32")
case("llama-3.2-1b", lora, "lora all r16", 2, 1024, **fused, attention="eager")
case("llama-3.2-1b", lora, "lora all r16", 2, 1024, **fused, attention="eager", checkpointing=True)
case("qwen3-8b", lora, "lora all r16", 1, 2048, **fused, checkpointing=True)
case("llama-3.1-8b", "full", "full", 1, 2048, **fused, checkpointing=True)
